#include "agent/systemd.h"

#include <stdlib.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-login.h>

enum { ANSWER_US = 500000 };

static const char manager[] = "org.freedesktop.systemd1";

static void close_bus(sd_bus **bus)
{
    *bus = sd_bus_flush_close_unref(*bus);
}

static void drop_message(sd_bus_message **m)
{
    *m = sd_bus_message_unref(*m);
}

static void free_text(char **text)
{
    free(*text);
}

/* The unit's Job property is (id, object path); id 0: none. */
static bool job_of(sd_bus *bus, const char *unit, sd_bus_message **ret_reply,
                   const char **ret_job)
{
    char *path CLEANUP(free_text) = NULL;
    uint32_t id = 0;
    return sd_bus_path_encode("/org/freedesktop/systemd1/unit", unit, &path) >= 0 &&
           sd_bus_get_property(bus, manager, path, "org.freedesktop.systemd1.Unit", "Job", NULL,
                               ret_reply, "(uo)") >= 0 &&
           sd_bus_message_read(*ret_reply, "(uo)", &id, ret_job) >= 0 && id != 0;
}

bool systemd_restarts_us(void)
{
    sd_bus *bus CLEANUP(close_bus) = NULL;
    sd_bus_message *reply CLEANUP(drop_message) = NULL;
    char *unit CLEANUP(free_text) = NULL;
    char *type CLEANUP(free_text) = NULL;
    const char *job = NULL;
    if (getenv("INVOCATION_ID") == NULL || sd_pid_get_unit(0, &unit) < 0 ||
        sd_bus_open_system(&bus) < 0)
        return false;
    (void)sd_bus_set_method_call_timeout(bus, ANSWER_US);
    return job_of(bus, unit, &reply, &job) &&
           sd_bus_get_property_string(bus, manager, job, "org.freedesktop.systemd1.Job",
                                      "JobType", NULL, &type) >= 0 &&
           strcmp(type, "restart") == 0;
}

uint64_t systemd_watchdog_ms(void)
{
    uint64_t us = 0;
    return sd_watchdog_enabled(0, &us) > 0 ? us / 1000 / 4 : 0;
}
