// Four processes count words in one std::map, which lies in memory that all of them share. One of them dies in the middle of it.
#include <multihull/lock.hpp>
#include <multihull/process.hpp>
#include <multihull/shm_allocator.hpp>

#include <csignal>
#include <iostream>
#include <mutex>
#include <sstream>
#include <string>

using Counts = multihull::shm_map<multihull::shm_string, int>;

void count(multihull::SharedHeap heap, multihull::Lock lock, std::string text) {
    std::istringstream words(text);
    for (std::string word; words >> word;) {
        multihull::shm_string key(word, heap.allocator<char>());
        try {
            std::lock_guard guard(lock);
            heap.get<Counts>("counts")[key] += 1;
            if (word == "reef") std::raise(SIGKILL);
        } catch (const multihull::OwnerDied& died) {
            // Whoever held the lock died, maybe in the middle of changing the map. Here it is known to be whole; where it is not, it
            // must not be looked into any more, and another one be made.
            heap.get<Counts>("counts")[key] += 1;
            died.mark_consistent();
        }
    }
}

int main() {
    multihull::SharedHeap heap(1 << 20);
    multihull::Lock lock;
    auto& counts = heap.make<Counts>("counts");
    for (const char* text : {"one hull two hulls", "two sails one reef lost", "one sea", "three hulls one deck"}) {
        multihull::Process process(count, heap, lock, text);
        process.start().join();
    }
    for (const auto& [word, times] : counts) std::cout << word << ' ' << times << '\n';
}
// deck 1
// hull 1
// hulls 2
// one 4
// reef 1
// sails 1
// sea 1
// three 1
// two 2
