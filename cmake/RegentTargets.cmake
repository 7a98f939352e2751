# One way to make a library, a program, a unit test, a fuzz target.
#
#   regent_library(<name> SOURCES a.c b.c DEPS regent_base PKGS libuv sqlite3)
#   regent_program(<name> SOURCES main.c DEPS regent_cli PKGS ... [DESTINATION dir])
#   regent_unit_test(<name> [SOURCES test_x.c ...] LIBS regent_base [TIMEOUT 1800])
#   regent_fuzz_target(<name> [SOURCES fuzz_x.c ...] LIBS regent_proto)
#   regent_embed(<library> <symbol> DIR FILE...)
#
# DEPS, LIBS: targets of ours. PKGS: names of RegentDependencies.cmake. A library without sources is an
# empty interface, a program without sources is left out.

# Texts of files become part of a library: struct embedded <symbol>[] (base/embedded.h) and size_t
# <symbol>_n; a file FILE in DIR has the name FILE.
function(regent_embed target symbol dir)
    set(out ${CMAKE_CURRENT_BINARY_DIR}/${symbol}.c)
    set(files)
    foreach(name IN LISTS ARGN)
        list(APPEND files ${dir}/${name})
    endforeach()
    add_custom_command(OUTPUT ${out}
        COMMAND ${CMAKE_COMMAND} -DOUT=${out} -DSYMBOL=${symbol} "-DFILES=${files}"
            -P ${CMAKE_SOURCE_DIR}/cmake/embed.cmake
        DEPENDS ${files} ${CMAKE_SOURCE_DIR}/cmake/embed.cmake VERBATIM)
    target_sources(${target} PRIVATE ${out})
endfunction()

function(regent_link target scope)
    cmake_parse_arguments(PARSE_ARGV 2 arg "" "" "DEPS;PKGS")
    target_link_libraries(${target} ${scope} ${arg_DEPS})
    foreach(pkg IN LISTS arg_PKGS)
        target_link_libraries(${target} ${scope} PkgConfig::${pkg})
    endforeach()
endfunction()

function(regent_library name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;DEPS;PKGS")
    if(arg_SOURCES)
        add_library(${name} STATIC ${arg_SOURCES})
        regent_link(${name} PUBLIC DEPS ${arg_DEPS} PKGS ${arg_PKGS})
    else()
        add_library(${name} INTERFACE)
        regent_link(${name} INTERFACE DEPS ${arg_DEPS} PKGS ${arg_PKGS})
    endif()
endfunction()

function(regent_program name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "DESTINATION" "SOURCES;DEPS;PKGS")
    if(NOT arg_SOURCES)
        return()
    endif()
    add_executable(${name} ${arg_SOURCES})
    regent_link(${name} PRIVATE DEPS ${arg_DEPS} PKGS ${arg_PKGS})
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
    if(NOT arg_DESTINATION)
        set(arg_DESTINATION ${CMAKE_INSTALL_BINDIR})
    endif()
    install(TARGETS ${name} RUNTIME DESTINATION ${arg_DESTINATION})
endfunction()

function(regent_unit_test name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT" "SOURCES;LIBS;PKGS;ARGS")
    if(NOT arg_SOURCES)
        set(arg_SOURCES ${name}.c)
    endif()
    if(NOT arg_TIMEOUT)
        set(arg_TIMEOUT 1800) # for what hangs: a busy machine with sanitizers takes fifty times the usual
    endif()
    add_executable(${name} ${arg_SOURCES} ${CMAKE_SOURCE_DIR}/tests/unit/no_sigpipe.c
        ${CMAKE_SOURCE_DIR}/tests/unit/scratch.c)
    regent_link(${name} PRIVATE DEPS ${arg_LIBS} PKGS cmocka ${arg_PKGS})
    add_test(NAME ${name} COMMAND ${name} ${arg_ARGS})
    set_tests_properties(${name} PROPERTIES TIMEOUT ${arg_TIMEOUT} LABELS unit)
endfunction()

# The corpus of a target is tests/fuzz/corpus/<name>/: small inputs, each the witness of something.
function(regent_fuzz_target name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LIBS;PKGS")
    if(REGENT_FUZZ STREQUAL "off")
        return()
    endif()
    if(NOT arg_SOURCES)
        set(arg_SOURCES ${name}.c)
    endif()
    add_executable(${name} ${arg_SOURCES})
    regent_link(${name} PRIVATE DEPS ${arg_LIBS} PKGS ${arg_PKGS})
    # LLVMFuzzerTestOneInput has no prototype in any header.
    target_compile_options(${name} PRIVATE -Wno-missing-prototypes)
    set_property(GLOBAL APPEND PROPERTY REGENT_FUZZ_TARGETS ${name})
    if(REGENT_FUZZ STREQUAL "libfuzzer")
        target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    else()
        target_sources(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests/fuzz/replay_main.c)
        set(corpus ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus/${name})
        if(NOT EXISTS ${corpus})
            set(corpus "")
        endif()
        add_test(NAME ${name} COMMAND ${name} ${corpus})
        set_tests_properties(${name} PROPERTIES TIMEOUT 1800 LABELS fuzz)
    endif()
endfunction()
