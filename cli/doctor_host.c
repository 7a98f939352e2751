/* What doctor looks at on this machine: clock, disks, certificate, rights of files. */
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/timex.h>

#include "base/mem.h"
#include "cli/doctor.h"
#include "proto/pki.h"

static void look_at_clock(struct doctor *d)
{
    struct timex t = {.modes = 0};
    int state = adjtimex(&t);
    bool bad = state == TIME_ERROR || (t.status & STA_UNSYNC) != 0;
    doctor_say(d, bad ? DOCTOR_WARN : DOCTOR_OK, "clock",
               "run chrony or systemd-timesyncd; leases do not need it, schedules, logs and "
               "certificates do",
               bad ? "not synchronised with any other" : "synchronised");
}

static void look_at_disk(struct doctor *d, const char *what, const char *path)
{
    enum { WARN_PERCENT = 15, FAIL_PERCENT = 5 };
    struct statvfs s;
    if (statvfs(path, &s) != 0 || s.f_blocks == 0) {
        doctor_say(d, DOCTOR_WARN, what, "run doctor as root or as the daemon's user",
                   "%s cannot be looked at", path);
        return;
    }
    uint64_t percent = s.f_bavail * 100 / s.f_blocks;
    uint64_t inodes = s.f_files > 0 ? s.f_favail * 100 / s.f_files : 100;
    uint64_t least = MIN(percent, inodes);
    doctor_say(d,
               least < FAIL_PERCENT   ? DOCTOR_FAIL
               : least < WARN_PERCENT ? DOCTOR_WARN
                                      : DOCTOR_OK,
               what, "make room: PostgreSQL stops when there is none",
               "%s: %" PRIu64 " %% free (%" PRIu64 " MB)%s", path, percent,
               (uint64_t)(s.f_bavail * s.f_frsize / 1000000),
               inodes < percent ? "; inodes are scarcer" : "");
}

static void look_at_certificate(struct doctor *d)
{
    enum { DAY_S = 86400, WARN_DAYS = 30, FAIL_DAYS = 3 };
    struct buf pem CLEANUP(buf_close) = BUF_INIT;
    struct errmsg e = {0};
    int64_t left_s = 0;
    enum err rv = pki_read_file(d->c->config.dcs.tls.cert, 65536, &pem, &e);
    if (rv == ERR_OK)
        rv = pki_seconds_left(buf_slice(&pem), &left_s, &e);
    if (rv != ERR_OK) {
        doctor_say(d, DOCTOR_FAIL, "certificate", "run doctor as root or as the daemon's user",
                   "%s", e.text);
        return;
    }
    int64_t days = left_s / DAY_S;
    doctor_say(d,
               days < FAIL_DAYS   ? DOCTOR_FAIL
               : days < WARN_DAYS ? DOCTOR_WARN
                                  : DOCTOR_OK,
               "certificate",
               "regentd renews it by itself while it reaches a voter; see `renew` in its log",
               "%s: %" PRId64 " days left", d->c->config.dcs.tls.cert, days);
}

static void look_at_rights(struct doctor *d, const char *path)
{
    struct stat st;
    bool there = stat(path, &st) == 0;
    bool open = there && (st.st_mode & (S_IRWXG | S_IRWXO)) != 0;
    if (there)
        doctor_say(d, open ? DOCTOR_FAIL : DOCTOR_OK, "rights", "chmod 600 it", "%s is %s",
                   path, open ? "open to others" : "its owner's alone");
}

void doctor_host(struct doctor *d)
{
    const struct config *c = &d->c->config;
    char *secrets CLEANUP(mem_cleanup) = mem_printf("%s/secrets.yml", c->data_dir);
    look_at_clock(d);
    look_at_disk(d, "disk", c->data_dir);
    if (c->postgresql.data_dir[0] != '\0')
        look_at_disk(d, "disk", c->postgresql.data_dir);
    look_at_certificate(d);
    look_at_rights(d, secrets);
    look_at_rights(d, c->dcs.tls.key);
}
