/* Root sets up a node for the installed services: whose the files are, and where they lie. */
#include <pwd.h>
#include <stdio.h>
#include <sys/fsuid.h>
#include <unistd.h>

#include "base/str.h"
#include "cli/setup.h"

static const char daemon_user[] = "regent";
static const char config_dir[] = "/etc/regent/";

void setup_owner_find(const char *config_file, struct setup_owner *ret)
{
    bool service = geteuid() == 0 && str_starts(config_file, config_dir);
    const struct passwd *p = service ? getpwnam(daemon_user) : NULL;
    *ret = (struct setup_owner){.uid = geteuid(), .gid = getegid()};
    if (p != NULL)
        *ret = (struct setup_owner){.packaged = true, .uid = p->pw_uid, .gid = p->pw_gid};
}

void setup_instance(const char *config_file, char *ret, size_t size)
{
    static const char suffix[] = ".yml";
    const char *name = config_file + strlen(config_dir);
    size_t n = strlen(config_file);
    ret[0] = '\0';
    if (!str_starts(config_file, config_dir) || strchr(name, '/') != NULL ||
        n < strlen(config_dir) + sizeof suffix || strcmp(config_file + n - 4, suffix) != 0)
        return;
    struct slice instance = slice_of(name, strlen(name) - strlen(suffix));
    if (strncmp(name, "regent.yml", sizeof "regent.yml") != 0 &&
        str_copy_slice(ret, size, instance) != ERR_OK)
        ret[0] = '\0';
}

void setup_become(const struct setup_owner *o, bool on)
{
    if (!o->packaged)
        return;
    (void)setfsgid(on ? o->gid : getegid());
    (void)setfsuid(on ? o->uid : geteuid());
}
