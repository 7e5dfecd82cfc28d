// expect: this type can't be hashed for a cache key: nobody can look into it, and its bytes are not its value
#include <multihull/memory.hpp>

class Angle {
public:
    explicit Angle(double degrees) : degrees_(degrees) {}

private:
    double degrees_;
};
int steps(const Angle&) { return 1; }

int main() {
    const multihull::Memory memory("cache");
    memory.cache("steps", steps)(Angle(90));
}
