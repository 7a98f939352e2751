/* The library is loaded when it is needed, once, at the end: with those that it brings along it is a twentieth
 * of this process. */
#include "agent/systemd.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-login.h>

enum { ANSWER_US = 500000 };

static const char manager[] = "org.freedesktop.systemd1";

#define FUNCTIONS(X)                  \
    X(sd_bus_flush_close_unref)       \
    X(sd_bus_get_property)            \
    X(sd_bus_get_property_string)     \
    X(sd_bus_message_read)            \
    X(sd_bus_message_unref)           \
    X(sd_bus_open_system)             \
    X(sd_bus_path_encode)             \
    X(sd_bus_set_method_call_timeout) \
    X(sd_pid_get_unit)

struct library {
#define MEMBER(f) __typeof__(&f) f;
    FUNCTIONS(MEMBER)
#undef MEMBER
};

/* It stays loaded: the process is about to end. */
static bool load(struct library *l)
{
    void *so = dlopen("libsystemd.so.0", RTLD_NOW | RTLD_LOCAL);
    if (so == NULL)
        return false;
    void *f;
#define LOOK_UP(name)     \
    f = dlsym(so, #name); \
    if (f == NULL)        \
        return false;     \
    memcpy(&l->name, &f, sizeof f);
    FUNCTIONS(LOOK_UP)
#undef LOOK_UP
    return true;
}

/* The unit's Job property is (id, object path); id 0: none. */
static bool job_of(const struct library *l, sd_bus *bus, const char *unit,
                   sd_bus_message **ret_reply, const char **ret_job)
{
    char *path = NULL;
    uint32_t id = 0;
    bool found = l->sd_bus_path_encode("/org/freedesktop/systemd1/unit", unit, &path) >= 0 &&
                 l->sd_bus_get_property(bus, manager, path, "org.freedesktop.systemd1.Unit",
                                        "Job", NULL, ret_reply, "(uo)") >= 0 &&
                 l->sd_bus_message_read(*ret_reply, "(uo)", &id, ret_job) >= 0 && id != 0;
    free(path);
    return found;
}

static bool job_is_restart(const struct library *l, sd_bus *bus, const char *unit)
{
    sd_bus_message *reply = NULL;
    const char *job = NULL;
    char *type = NULL;
    (void)l->sd_bus_set_method_call_timeout(bus, ANSWER_US);
    bool restart =
        job_of(l, bus, unit, &reply, &job) &&
        l->sd_bus_get_property_string(bus, manager, job, "org.freedesktop.systemd1.Job",
                                      "JobType", NULL, &type) >= 0 &&
        strcmp(type, "restart") == 0;
    free(type);
    (void)l->sd_bus_message_unref(reply);
    return restart;
}

bool systemd_restarts_us(void)
{
    struct library l;
    sd_bus *bus = NULL;
    char *unit = NULL;
    if (getenv("INVOCATION_ID") == NULL || !load(&l))
        return false;
    bool restart = l.sd_pid_get_unit(0, &unit) >= 0 && l.sd_bus_open_system(&bus) >= 0 &&
                   job_is_restart(&l, bus, unit);
    (void)l.sd_bus_flush_close_unref(bus);
    free(unit);
    return restart;
}
