foreach(target mp msg conn)
    regent_fuzz_target(fuzz_${target} LIBS regent_proto)
endforeach()
