// Everything that processes synchronise with: Lock, RLock, Semaphore, BoundedSemaphore, Condition, Event, Barrier.
#pragma once

#include <multihull/barrier.hpp>
#include <multihull/condition.hpp>
#include <multihull/event.hpp>
#include <multihull/lock.hpp>
#include <multihull/semaphore.hpp>
