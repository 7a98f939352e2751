# Language, warnings, sanitizers, hardening: the same for every target.

set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()
# NDEBUG is never set: the assertions of base/assert.h stay on in release.
set(CMAKE_C_FLAGS_DEBUG "-O1 -g")
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -g")
set(CMAKE_C_FLAGS_RELEASE "-O2")

include_directories(${CMAKE_SOURCE_DIR})
add_compile_definitions(_GNU_SOURCE REGENT_VERSION="${REGENT_VERSION}")
if(REGENT_PRETEND_NEXT)
    add_compile_definitions(REGENT_PRETEND_NEXT=1)
endif()
add_compile_options(-fno-strict-aliasing -fno-common "-ffile-prefix-map=${CMAKE_SOURCE_DIR}/=")

add_compile_options(
    -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition
    -Wconversion -Wno-sign-conversion -Wformat=2 -Wvla -Wundef -Wpointer-arith -Wwrite-strings
    -Wcast-align -Wimplicit-fallthrough)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
    # Texts for people may be cut; everything else uses str_format(), which refuses.
    add_compile_options(-Wlogical-op -Wduplicated-cond -Walloca -Wno-format-truncation)
    if(REGENT_ANALYZER)
        add_compile_options(-fanalyzer)
    endif()
endif()
if(REGENT_WERROR)
    add_compile_options(-Werror)
endif()

if(REGENT_SANITIZE)
    add_compile_options(-fsanitize=${REGENT_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    add_link_options(-fsanitize=${REGENT_SANITIZE})
endif()
if(REGENT_FUZZ STREQUAL "libfuzzer")
    if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
        message(FATAL_ERROR "REGENT_FUZZ=libfuzzer needs clang; use the preset 'fuzz', or REGENT_FUZZ=replay")
    endif()
    add_compile_options(-fsanitize=fuzzer-no-link)
endif()
if(REGENT_COVERAGE)
    add_compile_options(--coverage)
    add_link_options(--coverage)
endif()
if(REGENT_HARDEN)
    add_compile_options(-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fstack-protector-strong
        -fstack-clash-protection)
    add_link_options(-Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack)
endif()
include(CheckPIESupported)
check_pie_supported(LANGUAGES C)
