/* What the REST answers are made of: a copy of the newest view and of what people want to know besides.
 * Written by the agent thread, then never changed: any thread may read it that holds a reference. */
#ifndef REGENT_AGENT_REST_FACTS_H
#define REGENT_AGENT_REST_FACTS_H

#include "agent/core/view.h"
#include "agent/host_watch.h"
#include "agent/pg_monitor.h"
#include "agent/rest_count.h"
#include "agent/rest_past.h"

/* This node's tags, from its configuration file. */
struct rest_tags {
    bool nofailover, noloadbalance, clonefrom, nosync, nostream;
    char replicatefrom[64];
    int64_t failover_priority, sync_priority; /* 1: not set */
};

struct rest_facts {
    bool known; /* something has been published */
    char scope[64];
    char name[64];
    char pg_version[16];
    char rule[48];
    uint64_t wall_ms; /* wall clock at view.now_ms */
    struct rest_tags tags;
    const char *changes; /* rest_access_way(); NULL: as "no" */
    struct view view;
    struct pg_seen pg;          /* the monitor's last look; serial 0: none of this postmaster */
    struct request_rec request; /* kind "": none */
    struct failover_rec failover; /* kind "": none; also one whose time has not come */
    char *config_json;            /* owned; NULL: no dynamic configuration yet */
    struct rest_counts counts;
    struct host_seen host;      /* looks 0: not known */
    uint64_t fence_deadline_ms; /* CLOCK_BOOTTIME; 0: it holds none */
    /* from then on PostgreSQL is stopped for it; 0: it holds none */
    uint64_t fence_kills_ms;
    bool vip_up;
    bool watchdog_on;
    struct rest_past past;
    bool has_dcs; /* this member of the DCS has told of itself lately */
    struct status_reply dcs;
};

#endif
