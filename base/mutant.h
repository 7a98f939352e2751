/* Bugs on purpose. MUTANT(name) is false, and compiled away, in every build but one configured with
 * REGENT_MUTANTS (which release builds cannot be): there it is true when the environment has
 * REGENT_MUTANT=name. tests/mutants/run shows for each of them a test that sees it. */
#ifndef REGENT_BASE_MUTANT_H
#define REGENT_BASE_MUTANT_H

#include <stdbool.h>

#ifdef REGENT_MUTANTS
bool mutant_is(const char *name);
#define MUTANT(name) mutant_is(#name)
#else
#define MUTANT(name) false
#endif

#endif
