# An overlay port, of the tree that it is in: vcpkg install reel --overlay-ports=packaging/vcpkg
set(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../..")
vcpkg_configure_meson(SOURCE_PATH "${SOURCE_PATH}"
  OPTIONS -Dtests=disabled -Dexamples=disabled -Dbenchmarks=disabled)
vcpkg_install_meson()
vcpkg_fixup_pkgconfig()

# vcpkg keeps these in share/reel, from where the libraries are elsewhere.
vcpkg_cmake_config_fixup(CONFIG_PATH lib/cmake/Reel)
set(config "${CURRENT_PACKAGES_DIR}/share/reel/ReelConfig.cmake")
vcpkg_replace_string("${config}" [["${_reel_here}/../.."]] [["${_reel_here}/../../lib"]])
vcpkg_replace_string("${config}" [["../../../include"]] [["../../include"]])
file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/debug/include")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
