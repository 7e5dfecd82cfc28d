// dump() and load(): what goes in comes out, and what is wrong is said.
#include "memory/folders.hpp"

#include <multihull/memory.hpp>
#include <multihull/queue.hpp>

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <optional>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

namespace {

namespace fs = std::filesystem;
namespace mh = multihull;

struct Station {
    std::string name;
    std::map<std::string, std::vector<double>> series;
    std::optional<int> height;
    bool operator==(const Station&) const = default;
};
struct Pixel {
    float r = 0;
    float g = 0;
    bool operator==(const Pixel&) const = default;
};

namespace before {
struct Record {
    int a = 1;
};
}    // namespace before

class DumpTest : public ::testing::Test {
protected:
    test::Folder folder;
    std::string path = folder.path() + "/value.dump";
};

TEST_F(DumpTest, ComesBack) {
    const Station station{"north", {{"wind", {1, 2.5}}, {"rain", {}}}, 7};
    for (const auto compress : {mh::Compression{}, mh::zstd(), mh::zstd(19), mh::zstd(-5)}) {
        mh::dump(station, path, {.compress = compress});
        EXPECT_EQ(mh::load<Station>(path), station);
    }
    mh::dump(3, path, {.sync = true});
    EXPECT_EQ(mh::load<int>(path), 3);
    mh::dump(std::string(), path);
    EXPECT_EQ(mh::load<std::string>(path), "");
    EXPECT_EQ(test::files_in(folder.path()).size(), 1U);
}

TEST_F(DumpTest, MapsArrays) {
    std::vector<Pixel> pixels(50'000);
    pixels[49'999].g = 3;
    mh::dump(pixels, path);
    const auto array = mh::load<mh::MappedArray<Pixel>>(path, {.map_from = 0});
    EXPECT_TRUE(test::is_mapped(array.data()));
    EXPECT_EQ(array, mh::MappedArray<Pixel>(pixels));
    EXPECT_FALSE(test::is_mapped(mh::load<mh::MappedArray<Pixel>>(path, {.map_from = 1 << 30}).data()));
    EXPECT_EQ(mh::load<std::vector<Pixel>>(path, {.map_from = 0}), pixels);
    // And the other way round; what is mapped stays as it was.
    mh::dump(mh::MappedArray<Pixel>{{1, 2}}, path);
    EXPECT_EQ(mh::load<std::vector<Pixel>>(path), (std::vector<Pixel>{{1, 2}}));
    EXPECT_EQ(array[49'999].g, 3);
    mh::dump(std::vector<Pixel>(), path);
    EXPECT_TRUE(mh::load<mh::MappedArray<Pixel>>(path, {.map_from = 0}).empty());
}

TEST_F(DumpTest, GoesWhereItIsTold) {
    ASSERT_EQ(::chdir(folder.path().c_str()), 0);
    mh::dump(1, "here.dump");
    EXPECT_EQ(mh::load<int>("here.dump"), 1);
    EXPECT_EQ(mh::load<int>(fs::path(folder.path()) / "here.dump"), 1);
    const std::string longest(255, 'n');
    mh::dump(1, longest);
    mh::dump(2, longest);
    EXPECT_EQ(mh::load<int>(longest), 2);
    struct stat status {};
    ASSERT_EQ(::stat("here.dump", &status), 0);
    const mode_t mask = ::umask(0);
    ::umask(mask);
    EXPECT_EQ(status.st_mode & 0777, 0666 & ~mask);
    ASSERT_EQ(::chdir("/"), 0);
}

TEST_F(DumpTest, SaysWhatIsWrong) {
    const auto expect = [&](const std::string& part, auto function) {
        const std::string error = test::error_of(function);
        EXPECT_NE(error.find(part), error.npos) << '"' << error << '"';
    };
    expect("No such file", [&] { mh::load<int>(path); });
    expect("No such file", [&] { mh::dump(1, folder.path() + "/nowhere/x"); });
    expect("Is a directory", [&] { mh::dump(1, folder.path() + "/"); });
    expect("ordinary file", [&] { mh::load<int>(folder.path()); });
    fs::create_directory(path);
    expect("directory", [&] { mh::dump(1, path); });
    fs::remove(path);
    EXPECT_TRUE(test::files_in(folder.path()).empty());

    mh::dump(Station{}, path);
    expect("holds a", [&] { mh::load<int>(path); });
    expect("Station", [&] { mh::load<int>(path); });
    expect("not a int", [&] { mh::load<int>(path); });
    test::write_file(path, std::string(1000, 'x'));
    expect("does not begin as a file of Multihull's", [&] { mh::load<int>(path); });
    test::write_file(path, "");
    expect("cut short", [&] { mh::load<int>(path); });
    expect("handle of a shared object", [&] { mh::dump(mh::Queue<int>(), path); });
}

TEST_F(DumpTest, FindsEveryDamage) {
    const std::vector<std::string> value{"one", "two", "three"};
    for (const auto compress : {mh::Compression{}, mh::zstd()}) {
        mh::dump(value, path, {.compress = compress});
        const std::string good = test::read_file(path);
        for (const std::size_t from : {std::size_t{0}, std::size_t{1} << 30}) {
            for (std::size_t i = 0; i < good.size(); ++i) {
                std::string bad = good;
                bad[i] = static_cast<char>(bad[i] ^ (1 << i % 8));
                test::write_file(path, bad);
                EXPECT_THROW(mh::load<std::vector<std::string>>(path, {.map_from = from}), mh::Error) << i;
                if (i % 8 != 0) continue;
                test::write_file(path, good.substr(0, i));
                EXPECT_THROW(mh::load<std::vector<std::string>>(path, {.map_from = from}), mh::Error) << i;
            }
            test::write_file(path, good + 'x');
            EXPECT_THROW(mh::load<std::vector<std::string>>(path, {.map_from = from}), mh::Error);
            test::write_file(path, good);
            EXPECT_EQ(mh::load<std::vector<std::string>>(path, {.map_from = from}), value);
        }
    }
}

}    // namespace
