/* YAML that people write, as JSON, and back. Pure: no I/O. */
#ifndef REGENT_CONF_YAML_JSON_H
#define REGENT_CONF_YAML_JSON_H

#include "base/buf.h"
#include "base/err.h"

/* One document whose root is a map. JSON is YAML too. ERR_INVALID: ret_report has a line for each thing that is wrong,
 * "SOURCE:LINE: ...". */
enum err yaml_to_json(const char *source, struct slice yaml, struct buf *ret_json,
                      struct buf *ret_report) MUST_CHECK;
/* Maps as blocks, everything else as JSON, which is YAML. `json`: an object. */
void yaml_of_json(struct slice json, struct buf *ret_yaml);

#endif
