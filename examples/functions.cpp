// A pool of C++ for Python: functions.py calls these functions by their names, many at a time, and gets their results and their errors.
//
// usage: functions [SCRIPT]
#include <multihull/manager.hpp>
#include <multihull/pool.hpp>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using multihull::Object;

Object is_prime(const std::vector<Object>& args) {
    const auto n = args.at(0).as<std::int64_t>();
    if (n < 0) throw std::invalid_argument("is_prime() takes no negative number");
    for (std::int64_t d = 2; d * d <= n; ++d) {
        if (n % d == 0) return false;
    }
    return n > 1;
}

Object mean(const std::vector<Object>& args) {
    const auto numbers = multihull::from_object<std::vector<double>>(args.at(0));
    if (numbers.empty()) throw std::domain_error("mean() takes at least one number");
    return std::accumulate(numbers.begin(), numbers.end(), 0.0) / static_cast<double>(numbers.size());
}

Object crash(const std::vector<Object>&) { std::abort(); }

// What Python reaches. A call waits in the pool, not in a thread of the server: as many clients as like may call at once.
class Functions {
public:
    multihull::Future<Object> call(const std::string& name, const std::vector<Object>& args) {
        static const std::map<std::string, Object (*)(const std::vector<Object>&)> kFunctions{{"is_prime", is_prime},
                                                                                              {"mean", mean},
                                                                                              {"crash", crash}};
        const auto function = kFunctions.find(name);
        if (function == kFunctions.end()) throw multihull::KeyError("there is no function " + name);
        return pool_.apply_async(function->second, args);
    }

private:
    multihull::Pool pool_;
};

int main(int argc, char** argv) {
    multihull::init(argc, argv);
    const std::string script = argc > 1 ? argv[1] : "examples/functions.py";

    multihull::BaseManager manager;
    manager.register_type<Functions>({"Functions", true}, multihull::method<&Functions::call>("call"));
    manager.register_object("functions", "Functions");
    multihull::Server server = manager.get_server();
    std::thread serving([&] { server.serve_forever(); });

    int status = 1;
    if (std::FILE* const python = ::popen(("python3 '" + script + "'").c_str(), "w")) {
        std::fprintf(python, "%s\n%s\n", manager.address().c_str(), manager.authkey().c_str());
        std::fflush(python);
        status = ::pclose(python);
    }
    server.stop();
    serving.join();
    return status == 0 ? 0 : 1;
}
// [2, 3, 5, 7, 11, 13, 17, 19]
// 2.5
// ValueError: is_prime() takes no negative number
// KeyError: 'there is no function sine'
// a worker crashed with SIGABRT, and nothing else was lost
// True
