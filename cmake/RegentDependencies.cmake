# Foreign libraries, each as the imported target PkgConfig::<name>. deploy/install-deps installs them.

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

# regent_pkg(<name> <pkg-config spec>...): the first spec that is there.
function(regent_pkg name)
    foreach(spec IN LISTS ARGN)
        pkg_check_modules(${name} QUIET IMPORTED_TARGET GLOBAL ${spec})
        if(${name}_FOUND)
            message(STATUS "Found ${spec}: ${${name}_VERSION}")
            # Debian 13's msgpack-c.pc names "include", relative to nothing.
            foreach(property INTERFACE_INCLUDE_DIRECTORIES INTERFACE_LINK_DIRECTORIES)
                get_target_property(dirs PkgConfig::${name} ${property})
                if(dirs)
                    list(FILTER dirs INCLUDE REGEX "^/")
                    set_target_properties(PkgConfig::${name} PROPERTIES ${property} "${dirs}")
                endif()
            endforeach()
            return()
        endif()
    endforeach()
    list(JOIN ARGN " or " wanted)
    message(FATAL_ERROR "pkg-config finds no ${wanted}; run deploy/install-deps, or install its -dev package")
endfunction()

pkg_check_modules(raft QUIET IMPORTED_TARGET GLOBAL raft)
if(NOT raft_FOUND OR raft_VERSION VERSION_LESS 0.22.1)
    if(NOT raft_FOUND)
        set(raft_VERSION "none")
    endif()
    message(FATAL_ERROR
        "libraft >= 0.22.1 is needed, found: ${raft_VERSION}. Debian 12 has it in bookworm-backports "
        "(its own 0.15 is another ABI): run deploy/install-deps, or enable bookworm-backports and "
        "apt install libraft-dev/bookworm-backports. Debian 13 and later have it as libraft-dev.")
endif()
message(STATUS "Found raft: ${raft_VERSION}")

regent_pkg(libuv "libuv>=1.44")
regent_pkg(sqlite3 "sqlite3>=3.40")
regent_pkg(libpq "libpq>=15")
regent_pkg(msgpack msgpack-c msgpack)
regent_pkg(openssl "openssl>=3.0")
regent_pkg(libmicrohttpd "libmicrohttpd>=0.9.75")
regent_pkg(gnutls "gnutls>=3.7") # the TLS of libmicrohttpd
regent_pkg(jansson "jansson>=2.14")
regent_pkg(yaml yaml-0.1)
regent_pkg(smartcols smartcols)
regent_pkg(libsystemd libsystemd)
regent_pkg(zlib zlib)
regent_pkg(libmnl libmnl)
regent_pkg(ldns ldns libldns)
if(REGENT_TESTS)
    regent_pkg(cmocka "cmocka>=1.1.5")
endif()
