#include "workloads.hpp"

#include "failure.hpp"

#include <boost/multiprecision/cpp_int.hpp>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <cmath>
#include <fstream>
#include <iterator>
#include <random>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <utility>

namespace app {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kRows = 16;          // of a matrix or an image, in one item
constexpr std::size_t kTile = 64;          // of a matrix, so that what is multiplied stays in the nearest cache
constexpr std::size_t kBlurRadius = 12;    // pixels
constexpr double kBlurSigma = 4;
constexpr std::size_t kOptionsPerItem = 4;

/// Mixes a word into a number that stands for all of them, in their order.
std::uint64_t mix(std::uint64_t hash, std::uint64_t word) {
    hash = (hash ^ word) * 0x9E3779B97F4A7C15U;
    return hash ^ (hash >> 29U);
}

std::uint64_t mix(std::span<const double> values) {
    std::uint64_t hash = values.size();
    for (const double value : values) {
        hash = mix(hash, std::bit_cast<std::uint64_t>(value));
    }
    return hash;
}

std::uint64_t count(const WorkItem& item) {
    std::uint64_t sum = 0;
    for (std::uint64_t i = 0; i < item.size; ++i) {
        sum += i;
        asm volatile("" : "+r"(sum));    // the compiler knows the sum without counting
    }
    return sum + item.index;
}

std::uint64_t factorial(const WorkItem& item) {
    boost::multiprecision::cpp_int product = 1;
    const std::uint64_t n = item.size + item.index;
    for (std::uint64_t factor = 2; factor <= n; ++factor) {
        product *= factor;
    }
    constexpr std::uint64_t kPrime = (std::uint64_t{1} << 61U) - 1;
    return static_cast<std::uint64_t>(product % kPrime);
}

std::uint64_t sleep(const WorkItem& item) {
    std::this_thread::sleep_for(std::chrono::microseconds(item.size));
    return item.index;
}

std::uint64_t points_in_circle(const WorkItem& item) {
    std::mt19937_64 random(item.index);
    std::uint64_t inside = 0;
    const auto coordinate = [&random] { return static_cast<double>(random() >> 11U) * 0x1p-53; };
    for (std::uint64_t i = 0; i < item.size; ++i) {
        const double x = coordinate();
        const double y = coordinate();
        inside += x * x + y * y <= 1 ? 1U : 0U;
    }
    return inside;
}

/// Some rows of the product of two matrices, tile by tile.
std::uint64_t product_rows(const WorkItem& item) {
    const std::size_t n = item.size;
    const double* const left = item.arrays[0].data() + item.index * kRows * n;
    const double* const right = item.arrays[1].data();
    std::vector<double> product(kRows * n, 0.0);
    for (std::size_t inner = 0; inner < n; inner += kTile) {
        const std::size_t inner_end = std::min(inner + kTile, n);
        for (std::size_t row = 0; row < kRows; ++row) {
            for (std::size_t k = inner; k < inner_end; ++k) {
                const double factor = left[row * n + k];
                for (std::size_t column = 0; column < n; ++column) {
                    product[row * n + column] += factor * right[k * n + column];
                }
            }
        }
    }
    return mix(product);
}

std::array<double, 2 * kBlurRadius + 1> blur_weights() {
    std::array<double, 2 * kBlurRadius + 1> weights{};
    double sum = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        const double distance = static_cast<double>(i) - kBlurRadius;
        weights[i] = std::exp(-distance * distance / (2 * kBlurSigma * kBlurSigma));
        sum += weights[i];
    }
    for (double& weight : weights) {
        weight /= sum;
    }
    return weights;
}

/// Some rows of an image after a Gaussian blur: down each column, then along each row; at the edges the last pixel goes on.
std::uint64_t blurred_rows(const WorkItem& item) {
    const std::size_t width = item.size;
    const double* const image = item.arrays[0].data();
    const std::size_t height = item.arrays[0].size() / width;
    static const auto weights = blur_weights();
    const auto clamped = [](std::size_t position, std::size_t end) {    // position counts from kBlurRadius outside
        return std::min(position < kBlurRadius ? 0 : position - kBlurRadius, end - 1);
    };
    std::vector<double> band(kRows * width, 0.0);
    std::vector<double> line(width);
    for (std::size_t row = 0; row < kRows; ++row) {
        std::ranges::fill(line, 0.0);
        for (std::size_t k = 0; k < weights.size(); ++k) {
            const double* const source = image + clamped(item.index * kRows + row + k, height) * width;
            for (std::size_t x = 0; x < width; ++x) {
                line[x] += weights[k] * source[x];
            }
        }
        for (std::size_t x = 0; x < width; ++x) {
            double sum = 0;
            for (std::size_t k = 0; k < weights.size(); ++k) {
                sum += weights[k] * line[clamped(x + k, width)];
            }
            band[row * width + x] = sum;
        }
    }
    return mix(band);
}

/// An American put by a binomial tree (Cox, Ross, Rubinstein): 100 today, 5 % interest, 20 % volatility, one year.
double put_price(double strike, std::size_t steps) {
    constexpr double kSpot = 100, kRate = 0.05, kVolatility = 0.2;
    const double dt = 1.0 / static_cast<double>(steps);
    const double up = std::exp(kVolatility * std::sqrt(dt));
    const double growth = std::exp(kRate * dt);
    const double likely = (growth - 1 / up) / (up - 1 / up);
    std::vector<double> spot(2 * steps + 1);
    for (std::size_t i = 0; i < spot.size(); ++i) {
        spot[i] = kSpot * std::pow(up, static_cast<double>(i) - static_cast<double>(steps));
    }
    std::vector<double> value(steps + 1);
    for (std::size_t i = 0; i <= steps; ++i) {
        value[i] = std::max(strike - spot[2 * i], 0.0);
    }
    for (std::size_t step = steps; step-- > 0;) {
        for (std::size_t i = 0; i <= step; ++i) {
            const double held = (likely * value[i + 1] + (1 - likely) * value[i]) / growth;
            value[i] = std::max(held, strike - spot[steps - step + 2 * i]);
        }
    }
    return value[0];
}

std::uint64_t price_options(const WorkItem& item) {
    std::array<double, kOptionsPerItem> prices{};
    for (std::size_t i = 0; i < prices.size(); ++i) {
        const auto number = static_cast<double>(item.index * kOptionsPerItem + i);
        prices[i] = put_price(80 + std::fmod(number * 1.7, 40), item.size);
    }
    return mix(prices);
}

std::uint64_t count_words(const WorkItem& item) {
    std::ifstream file(item.path, std::ios::binary);
    if (!file) {
        throw EnvironmentError(fmt::format("Cannot read the file '{}'.", item.path));
    }
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    std::unordered_map<std::string, std::uint64_t> counts;
    std::string word;
    for (std::size_t i = 0; i <= text.size(); ++i) {
        const auto c = static_cast<unsigned char>(i < text.size() ? text[i] : ' ');
        if (std::isalnum(c) != 0 || c >= 0x80) {
            word += static_cast<char>(std::tolower(c));
        } else if (!word.empty()) {
            ++counts[word];
            word.clear();
        }
    }
    // A sum, because a table has no order.
    std::uint64_t sum = 0;
    for (const auto& [counted, times] : counts) {
        std::uint64_t hash = times;
        for (const char c : counted) {
            hash = mix(hash, static_cast<unsigned char>(c));
        }
        sum += hash;
    }
    return sum;
}

WorkItems numbered(const Workload& work, const WorkRequest& request) {
    WorkItems result;
    for (std::size_t i = 0; i < request.items; ++i) {
        result.items.push_back({.work = static_cast<std::uint32_t>(&work - workloads().data()),
                                .index = i,
                                .size = request.size});
    }
    return result;
}

std::vector<double> some_numbers(std::size_t count) {
    std::vector<double> numbers(count);
    std::mt19937_64 random(count);
    for (double& number : numbers) {
        number = static_cast<double>(random() >> 11U) * 0x1p-53;
    }
    return numbers;
}

WorkItems with_arrays(const Workload& work, const WorkRequest& request, std::span<const std::size_t> rows) {
    WorkItems result = numbered(work, request);
    std::vector<multihull::ConstArray<double>> arrays;
    for (const std::size_t count : rows) {
        arrays.emplace_back(some_numbers(count * request.size));
    }
    for (WorkItem& item : result.items) {
        item.arrays = arrays;
    }
    return result;
}

WorkItems matrices(const Workload& work, const WorkRequest& request) {
    return with_arrays(work, request, std::array{request.items * kRows, static_cast<std::size_t>(request.size)});
}

WorkItems image(const Workload& work, const WorkRequest& request) {
    return with_arrays(work, request, std::array{request.items * kRows});
}

std::string some_text(std::uint64_t size, std::uint64_t seed) {
    constexpr std::string_view kSyllables[] = {"ta", "ri", "lo", "men", "sa", "ku", "den", "o", "pi", "har"};
    std::mt19937_64 random(seed);
    std::string text;
    while (text.size() < size) {
        for (std::uint64_t syllables = 1 + random() % 3; syllables > 0; --syllables) {
            text += kSyllables[random() % std::size(kSyllables)];
        }
        text += random() % 12 == 0 ? ".\n" : " ";
    }
    text.resize(size);
    return text;
}

std::vector<fs::path> files_in(const std::vector<fs::path>& places) {
    std::vector<fs::path> files;
    for (const fs::path& place : places) {
        std::error_code error;
        if (fs::is_directory(place, error)) {
            std::vector<fs::path> found;
            for (auto entry = fs::recursive_directory_iterator(place, error);
                 !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
                std::error_code gone;
                if (entry->is_regular_file(gone)) {
                    found.push_back(entry->path());
                }
            }
            std::ranges::sort(found);
            files.insert(files.end(), found.begin(), found.end());
        } else if (fs::is_regular_file(place, error)) {
            files.push_back(place);
        }
        if (error) {
            throw EnvironmentError(fmt::format("Cannot read '{}': {}.", place.native(), error.message()));
        }
    }
    if (files.empty()) {
        throw EnvironmentError("There is no file to count words in: give files, or folders that hold some.");
    }
    return files;
}

WorkItems texts(const Workload& work, const WorkRequest& request) {
    WorkRequest counted = request;
    if (request.files.empty()) {
        WorkItems result = numbered(work, counted);
        for (WorkItem& item : result.items) {
            result.texts.push_back(std::make_unique<TextInMemory>(some_text(request.size, item.index)));
            item.path = result.texts.back()->path();
        }
        return result;
    }
    const std::vector<fs::path> files = files_in(request.files);
    counted.items = request.items == 0 ? files.size() : std::min(request.items, files.size());
    WorkItems result = numbered(work, counted);
    for (WorkItem& item : result.items) {
        item.path = fs::absolute(files[item.index]);
    }
    return result;
}

constexpr std::array kWorkloads{
    Workload{"count", "Counting loop", "turns a call", 10'000'000, 48, numbered, count},
    Workload{"factorial", "Factorials", "! and up", 3'000, 48, numbered, factorial},
    Workload{"sleep", "Sleeping, as if for input and output", "us a call", 10'000, 24, numbered, sleep},
    Workload{"pi", "Monte Carlo pi", "points a call", 500'000, 48, numbered, points_in_circle},
    Workload{"matrix", "Matrix product by blocks", "columns, 16 rows a call", 768, 48, matrices, product_rows},
    Workload{"blur", "Image blur", "pixels wide, 16 rows a call", 4096, 64, image, blurred_rows},
    Workload{"options", "Option pricing", "steps of a tree, 4 options a call", 1'500, 48, numbered, price_options},
    Workload{"words", "Word counts over files", "bytes a call, where no files are given", 400'000, 48, texts,
             count_words},
};

}    // namespace

TextInMemory::TextInMemory(std::string_view text) : descriptor_(::memfd_create("multihull text", MFD_CLOEXEC)) {
    std::size_t written = 0;
    while (descriptor_ >= 0 && written < text.size()) {
        const ssize_t n = ::write(descriptor_, text.data() + written, text.size() - written);
        if (n <= 0) {
            ::close(std::exchange(descriptor_, -1));
            break;
        }
        written += static_cast<std::size_t>(n);
    }
    if (descriptor_ < 0) {
        throw EnvironmentError("There is no memory for the text, or no file descriptor: ask for fewer items.");
    }
}

TextInMemory::~TextInMemory() { ::close(descriptor_); }

std::string TextInMemory::path() const { return fmt::format("/proc/{}/fd/{}", getpid(), descriptor_); }

std::span<const Workload> workloads() { return kWorkloads; }

const Workload* find_workload(std::string_view name) {
    const auto* const found = std::ranges::find(kWorkloads, name, &Workload::name);
    return found == kWorkloads.end() ? nullptr : found;
}

WorkItems prepare(const Workload& work, const WorkRequest& request) {
    WorkRequest whole = request;
    whole.size = request.size == 0 ? work.size : request.size;
    if (request.items == 0 && request.files.empty()) {
        whole.items = work.items;
    }
    return work.prepare(work, whole);
}

std::uint64_t run_item(const WorkItem& item) { return kWorkloads.at(item.work).run(item); }

}    // namespace app
