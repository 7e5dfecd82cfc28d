// What the server computes, the slow way, and what happens to those who ask it for nonsense.
#pragma once

#include <string>

namespace example {

inline long fibonacci(int n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }

/// The answer to one request. A negative number meets a bug: it crashes.
inline std::string answer_request(const std::string& line) {
    const int n = std::stoi(line);
    if (n < 0) *static_cast<volatile int*>(nullptr) = n;
    return std::to_string(fibonacci(n));
}

}    // namespace example
