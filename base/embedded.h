/* Texts of files that became part of a library (regent_embed() of cmake/RegentTargets.cmake). */
#ifndef REGENT_BASE_EMBEDDED_H
#define REGENT_BASE_EMBEDDED_H

struct embedded {
    const char *name; /* of the file */
    const char *text;
};

#endif
