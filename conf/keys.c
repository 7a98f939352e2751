#include "conf/keys.h"

#define AT(member) offsetof(struct config, member)
#define S(path, member, ...)                              \
    {                                                     \
        path, CONF_STR, .offset = AT(member), __VA_ARGS__ \
    }

const struct conf_key conf_keys[] = {
    S("scope", scope, .required = true, .help = "name of the cluster"),
    S("name", name, .required = true, .help = "name of this node, unique in the cluster"),
    S("data_dir", data_dir, .fallback = "/var/lib/regent",
      .help = "directory of log.db, state.db, pki/, secrets.yml"),

    S("dcs.listen", dcs.listen, .required = true, .host_port = true,
      .help = "peers and clients, mutual TLS"),
    S("dcs.connect_address", dcs.connect_address, .host_port = true,
      .help = "what others dial (NAT); default: listen"),
    S("dcs.role", dcs.role, .fallback = "voter", .choices = "voter|learner|witness",
      .help = "role in the DCS"),
    {"dcs.join", CONF_LIST, .offset = AT(dcs.join), .count_offset = AT(dcs.n_join),
     .host_port = true, .help = "members known when this node joined"},
    S("dcs.tls.ca", dcs.tls.ca, .help = "default: DATA_DIR/pki/ca.crt"),
    S("dcs.tls.cert", dcs.tls.cert, .help = "default: DATA_DIR/pki/node.crt"),
    S("dcs.tls.key", dcs.tls.key, .help = "default: DATA_DIR/pki/node.key"),
    {"dcs.election_ms", CONF_U64, .offset = AT(dcs.election_ms), .fallback = "1000",
     .max = 60000, .help = "election timeout in milliseconds"},
    {"dcs.heartbeat_ms", CONF_U64, .offset = AT(dcs.heartbeat_ms), .fallback = "100",
     .max = 12000, .help = "heartbeat period in milliseconds"},

    S("restapi.listen", restapi.listen, .host_port = true,
      .help = "health checks and REST; empty: off"),
    S("restapi.connect_address", restapi.connect_address, .host_port = true,
      .help = "default: listen"),
    S("restapi.authentication.username", restapi.authentication.username,
      .help = "for unsafe verbs"),
    S("restapi.authentication.password", restapi.authentication.password,
      .help = "for unsafe verbs"),
    S("restapi.certfile", restapi.certfile, .help = "certificate: HTTPS when set"),
    S("restapi.keyfile", restapi.keyfile, .help = "its key"),
    S("restapi.cafile", restapi.cafile, .help = "CA of client certificates"),
    S("restapi.verify_client", restapi.verify_client, .fallback = "none",
      .choices = "none|optional|required", .help = "client certificates"),
    {"restapi.allowlist", CONF_LIST, .offset = AT(restapi.allowlist),
     .count_offset = AT(restapi.n_allowlist), .help = "addresses that may call unsafe verbs"},

    {"bootstrap.dcs", CONF_JSON, .offset = AT(bootstrap.dcs_json), .fallback = "{}",
     .help = "the first dynamic configuration"},
    {"bootstrap.initdb", CONF_FLAGS, .offset = AT(bootstrap.initdb),
     .count_offset = AT(bootstrap.n_initdb), .help = "options of initdb"},

    S("postgresql.listen", postgresql.listen, .host_port = true, .help = "empty on a witness"),
    S("postgresql.connect_address", postgresql.connect_address, .host_port = true,
      .help = "default: listen"),
    S("postgresql.data_dir", postgresql.data_dir, .help = "PGDATA"),
    S("postgresql.bin_dir", postgresql.bin_dir,
      .help = "default: the newest installed version"),
    {"postgresql.parameters", CONF_PAIRS, .offset = AT(postgresql.parameters),
     .count_offset = AT(postgresql.n_parameters), .help = "server parameters of this node"},
    {"postgresql.pg_hba", CONF_LIST, .offset = AT(postgresql.pg_hba),
     .count_offset = AT(postgresql.n_pg_hba), .help = "lines of pg_hba.conf"},
    S("postgresql.authentication.superuser.username",
      postgresql.authentication.superuser.username, .fallback = "postgres",
      .help = "the agent's superuser"),
    S("postgresql.authentication.superuser.password",
      postgresql.authentication.superuser.password, .help = "default: from secrets.yml"),
    S("postgresql.authentication.replication.username",
      postgresql.authentication.replication.username, .fallback = "replicator",
      .help = "role standbys stream with"),
    S("postgresql.authentication.replication.password",
      postgresql.authentication.replication.password, .help = "default: from secrets.yml"),
    S("postgresql.authentication.rewind.username", postgresql.authentication.rewind.username,
      .fallback = "rewind", .help = "role pg_rewind connects with"),
    S("postgresql.authentication.rewind.password", postgresql.authentication.rewind.password,
      .help = "default: from secrets.yml"),

    {"templates", CONF_JSON, .offset = AT(templates_json), .fallback = "{}",
     .help = "files of other programs that follow the cluster"},

    {"tags.nofailover", CONF_BOOL, .offset = AT(tags.nofailover), .help = "never promoted"},
    {"tags.noloadbalance", CONF_BOOL, .offset = AT(tags.noloadbalance),
     .help = "/replica answers 503"},
    {"tags.clonefrom", CONF_BOOL, .offset = AT(tags.clonefrom),
     .help = "preferred source of clones"},
    {"tags.nosync", CONF_BOOL, .offset = AT(tags.nosync),
     .help = "never a synchronous standby"},
    {"tags.failover_priority", CONF_I64, .offset = AT(tags.failover_priority), .fallback = "1",
     .help = "higher wins between equals; 0 and below: never promoted"},

    S("watchdog.mode", watchdog.mode, .fallback = "automatic",
      .choices = "off|automatic|required", .help = "hardware watchdog"),
    S("watchdog.device", watchdog.device, .fallback = "/dev/watchdog", .help = "its device"),
    S("log.level", log.level, .fallback = "info", .choices = "debug|info|warn|error",
      .help = "least level shown"),
    S("log.format", log.format, .fallback = "logfmt", .choices = "logfmt|json",
      .help = "form of the log lines"),
};

const size_t conf_keys_n = ARRAY_LEN(conf_keys);
