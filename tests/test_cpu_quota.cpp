// How many cores the files of control groups grant.
#include <doctest/doctest.h>

#include <reel/autograd/kernels/cpu_quota.h>

using namespace reel::kernels;

TEST_CASE("cpu.max grants whole cores, rounded up") {
  CHECK(cores_of_cpu_max("50000 100000\n") == 1);
  CHECK(cores_of_cpu_max("100000 100000\n") == 1);
  CHECK(cores_of_cpu_max("100001 100000\n") == 2);
  CHECK(cores_of_cpu_max("150000 100000\n") == 2);
  CHECK(cores_of_cpu_max("200000 100000\n") == 2);
  CHECK(cores_of_cpu_max("1600000 100000\n") == 16);
  CHECK(cores_of_cpu_max("1000 1000000\n") == 1);  // the least that the kernel takes
  CHECK(cores_of_cpu_max("33000 11000") == 3);
  CHECK(cores_of_cpu_max("  150000\t100000  ") == 2);
  CHECK(cores_of_cpu_max("99999999999 100000\n") == all_cores);
}

TEST_CASE("cpu.max without a limit, or of which nothing can be made, grants all cores") {
  for (const char* text : {"max 100000\n", "max", "", "\n", "150000", "garbage", "garbage 100000",
                           "150000 garbage", "0 100000", "-1 100000", "150000 0", "150000 -100000",
                           "nan 100000", "150000 nan", "inf 100000", "1e999 100000", "\xff\xfe"}) {
    CAPTURE(text);
    CHECK(cores_of_cpu_max(text) == all_cores);
  }
}

TEST_CASE("the two files of the first version of control groups") {
  CHECK(cores_of_cfs("150000\n", "100000\n") == 2);
  CHECK(cores_of_cfs("50000\n", "100000\n") == 1);
  CHECK(cores_of_cfs("400000", "100000") == 4);
  CHECK(cores_of_cfs("-1\n", "100000\n") == all_cores);
  CHECK(cores_of_cfs("", "") == all_cores);
  CHECK(cores_of_cfs("150000", "") == all_cores);
  CHECK(cores_of_cfs("", "100000") == all_cores);
  CHECK(cores_of_cfs("garbage", "100000") == all_cores);
  CHECK(cores_of_cfs("150000", "0") == all_cores);
}

TEST_CASE("the lines of /proc/self/cgroup") {
  const auto unified = control_group_of("0::/user.slice/session-1.scope");
  REQUIRE(unified);
  CHECK(unified->version == 2);
  CHECK(unified->path == "/user.slice/session-1.scope");
  const auto root = control_group_of("0::/");
  REQUIRE(root);
  CHECK(root->path == "/");
  for (const char* line :
       {"4:cpu,cpuacct:/docker/a:b", "4:cpuacct,cpu:/docker/a:b", "4:cpu:/docker/a:b"}) {
    const auto group = control_group_of(line);
    REQUIRE(group);
    CHECK(group->version == 1);
    CHECK(group->path == "/docker/a:b");
  }
  for (const char* line : {"", ":", "::", "0::", "0::relative", "garbage", "3:cpuset:/a",
                           "5:cpuacct:/a", "1:name=systemd:/a", "4:cpu", "4:cpu:"}) {
    CAPTURE(line);
    CHECK_FALSE(control_group_of(line));
  }
}

TEST_CASE("the least quota between a group and the root counts") {
  const auto cores_in = [](std::string_view path) {
    return least_cores("/mount", path, [](const std::string& directory) {
      if (directory == "/mount") return 8;
      if (directory == "/mount/a") return 2;
      if (directory == "/mount/a/b") return 4;
      return all_cores;
    });
  };
  CHECK(cores_in("/") == 8);
  CHECK(cores_in("/a") == 2);
  CHECK(cores_in("/a/b") == 2);
  CHECK(cores_in("/other") == 8);
  CHECK(cores_in("/a/b/c") == 2);
  CHECK(cores_in("/a/b/") == 2);
}
