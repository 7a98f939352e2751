# REGENT_VERSION, what the programs say: the project's version, with the commit behind it when this is a
# release build of a git tree that is not at the tag of that version. A Debug build would be compiled
# anew with every commit, and a packager gives it: -DREGENT_VERSION=...

set(REGENT_VERSION "" CACHE STRING "Version that the programs report; empty: from git")

if(REGENT_VERSION STREQUAL "")
    set(REGENT_VERSION ${PROJECT_VERSION})
    find_package(Git QUIET)
    if(GIT_FOUND AND EXISTS ${CMAKE_SOURCE_DIR}/.git AND NOT CMAKE_BUILD_TYPE STREQUAL "Debug")
        execute_process(COMMAND ${GIT_EXECUTABLE} describe --always --dirty --match "v${PROJECT_VERSION}" --abbrev=8
            WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
        if(NOT commit STREQUAL "" AND NOT commit STREQUAL "v${PROJECT_VERSION}")
            string(REGEX REPLACE "^v${PROJECT_VERSION}-([0-9]+)-g" "\\1.g" commit "${commit}")
            string(REPLACE "-" "." commit "${commit}")
            set(REGENT_VERSION "${PROJECT_VERSION}+${commit}")
        endif()
    endif()
endif()
message(STATUS "Version ${REGENT_VERSION}")
