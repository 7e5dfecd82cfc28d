#include "os/ready_set.hpp"

#include "os/fault.hpp"

#include <algorithm>
#include <sys/epoll.h>
#include <sys/timerfd.h>

namespace multihull::os {

ReadySet::ReadySet()
    : epoll_(checked(Call::epoll_create, [] { return ::epoll_create1(EPOLL_CLOEXEC); })),
      timer_(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) {
    if (!epoll_) throw_errno("epoll_create1");
    if (!timer_) throw_errno("timerfd_create");
    add(timer_.get(), For::reading);
}

void ReadySet::add(int descriptor, For use) {
    epoll_event event{};
    event.events = use == For::writing ? EPOLLOUT : EPOLLIN;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, descriptor, &event) != 0) throw_errno("epoll_ctl");
}

void ReadySet::remove(int descriptor) noexcept { ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, descriptor, nullptr); }

void ReadySet::set_alarm(std::int64_t time_ns) noexcept {
    if (time_ns == alarm_) return;
    alarm_ = time_ns;
    itimerspec when{};    // all zero: never
    if (time_ns != kNever) {
        const std::int64_t time = std::max<std::int64_t>(time_ns, 1);
        when.it_value = {time / 1'000'000'000, time % 1'000'000'000};
    }
    ::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr);
}

}    // namespace multihull::os
