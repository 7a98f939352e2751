/* The dynamic configuration as decide() needs it. */
#include "agent/core/view.h"

void config_defaults(struct config_rec *c)
{
    /* Whoever stores a record has filled it in: there these zeros are meant. */
    bool empty = c->ttl == 0;
    if (empty && c->maximum_lag_on_failover == 0)
        c->maximum_lag_on_failover = 1048576;
    if (empty && c->primary_start_timeout == 0)
        c->primary_start_timeout = 300;
    if (empty)
        c->ttl = 5;
    if (c->loop_wait == 0)
        c->loop_wait = 10;
    if (c->retry_timeout == 0)
        c->retry_timeout = 10;
    if (c->synchronous_mode[0] == '\0')
        (void)memcpy(c->synchronous_mode, "off", sizeof "off");
    if (c->synchronous_node_count == 0)
        c->synchronous_node_count = 1;
    if (c->on_primary_crash[0] == '\0')
        (void)memcpy(c->on_primary_crash, "auto", sizeof "auto");
    if (c->on_sick_node[0] == '\0')
        (void)memcpy(c->on_sick_node, "report", sizeof "report");
    if (c->sick_failover_interval == 0)
        c->sick_failover_interval = 300;
    if (c->member_slots_ttl == 0)
        c->member_slots_ttl = 1800;
}

void config_view(const struct config_rec *record, struct view_config *ret_config)
{
    struct config_rec c = *record;
    config_defaults(&c);
    *ret_config = (struct view_config){
        .ttl_ms = c.ttl * 1000,
        .sync_strict = c.synchronous_mode_strict,
        .sync_node_count = c.synchronous_node_count,
        .maximum_lag_on_failover = c.maximum_lag_on_failover,
        .maximum_lag_on_syncnode = c.maximum_lag_on_syncnode,
        .check_timeline = c.check_timeline,
        .primary_start_timeout_ms = c.primary_start_timeout * 1000,
        .sick_failover = strcmp(c.on_sick_node, "failover") == 0,
        .sick_interval_ms = c.sick_failover_interval * 1000,
        .retry_interval_ms = 100,
        .pause = c.pause,
        .use_pg_rewind = c.use_pg_rewind,
        .remove_on_rewind_failure = c.remove_data_directory_on_rewind_failure,
        .remove_on_diverged = c.remove_data_directory_on_diverged_timelines,
        .standby_cluster = c.standby_cluster.n > 0 &&
                           !slice_eq(c.standby_cluster, slice_str("null")) &&
                           !slice_eq(c.standby_cluster, slice_str("{}")),
    };
    ret_config->sync_mode = strcmp(c.synchronous_mode, "on") == 0       ? SYNC_ON
                            : strcmp(c.synchronous_mode, "quorum") == 0 ? SYNC_QUORUM
                                                                        : SYNC_OFF;
    ret_config->on_primary_crash = strcmp(c.on_primary_crash, "restart") == 0 ? CRASH_RESTART
                                   : strcmp(c.on_primary_crash, "failover") == 0
                                       ? CRASH_FAILOVER
                                       : CRASH_AUTO;
}
