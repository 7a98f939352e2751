/* Text templates: a subset of Mustache over a JSON object, for files that other programs read.
 *
 *   {{name}} {{leader.host}}    a value of the innermost section that has it
 *   {{name|text}}               the same, or the text when there is none
 *   {{#name}} ... {{/name}}     for every item of a list; once for an object, true or a text; else not at all
 *   {{^name}} ... {{/name}}     when the section above would be empty
 *   {{! ... }}                  nothing
 *
 * A line that has nothing but one of the last three leaves no line behind. Values are texts, numbers
 * and booleans; one with a control character is refused, so that it cannot become a line of its own.
 * Pure; docs/templates.md is the manual. */
#ifndef REGENT_CONF_TEMPLATE_H
#define REGENT_CONF_TEMPLATE_H

#include "base/base.h"
#include "base/buf.h"
#include "base/embedded.h"
#include "base/err.h"

enum { TEMPLATE_TEXT_MAX = 256 * 1024, TEMPLATE_OUT_MAX = 1 << 20 };

/* deploy/templates */
extern const struct embedded template_builtins[];
extern const size_t template_builtins_n;
/* NULL: there is none of that name. */
const char *template_builtin(const char *name);

/* ERR_INVALID: a mistake in the template, "NAME:LINE: what". ERR_UNAVAILABLE: a value is null, as
 * `leader` is during a failover: nothing is wrong, try again later. ERR_LIMIT: too large. */
enum err template_render(const char *name, struct slice text, struct slice json,
                         struct buf *ret_text, struct errmsg *e) MUST_CHECK;

#endif
