# `cpack -G TGZ` and `cpack -G RPM` in a build tree (preset release). Debian's package is made by debian/.

set(CPACK_PACKAGE_NAME regent)
set(CPACK_PACKAGE_VENDOR "The Regent maintainers")
file(STRINGS ${CMAKE_SOURCE_DIR}/debian/control maintainer REGEX "^Maintainer: ")
string(REPLACE "Maintainer: " "" CPACK_PACKAGE_CONTACT "${maintainer}")
set(CPACK_PACKAGE_VERSION ${REGENT_VERSION})
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_RESOURCE_FILE_LICENSE ${CMAKE_SOURCE_DIR}/LICENSE)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)

set(CPACK_RPM_PACKAGE_LICENSE "Apache-2.0")
set(CPACK_RPM_PACKAGE_GROUP "Applications/Databases")
set(CPACK_RPM_PACKAGE_AUTOREQ ON)
set(CPACK_RPM_POST_INSTALL_SCRIPT_FILE ${CMAKE_SOURCE_DIR}/deploy/rpm/post)
set(CPACK_RPM_PRE_UNINSTALL_SCRIPT_FILE ${CMAKE_SOURCE_DIR}/deploy/rpm/preun)
set(CPACK_RPM_FILE_NAME RPM-DEFAULT)
set(CPACK_RPM_EXCLUDE_FROM_AUTO_FILELIST_ADDITION
    /usr/lib/systemd /usr/lib/systemd/system /usr/lib/sysusers.d /usr/lib/tmpfiles.d
    /usr/share/bash-completion /usr/share/bash-completion/completions /usr/libexec
    /usr/share/man /usr/share/man/man1 /usr/share/man/man5 /usr/share/man/man8)

set(CPACK_SOURCE_GENERATOR "")
include(CPack)
