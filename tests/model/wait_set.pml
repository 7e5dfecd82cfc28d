/*
 * The wait set (src/shm/wait_set.cpp) in the loop of src/sync/wait.hpp, with processes that may be killed between any two steps.
 *
 * WAITERS processes take one permit each of a semaphore that has none, and RELEASERS processes give one each. What stands under the
 * object's guard is one step (the guard itself is lock.pml's). One of the waiters has a deadline. Sleepers may be woken by nobody,
 * as when the bound of their sleep is over (LOOKS times each), but nothing relies on that: without it, a lost wake-up shows.
 * Up to KILLS processes are killed; a recovery runs for each of the dead.
 *
 * Held to
 * (1) When nobody can do anything more, no survivor sleeps beside a permit.
 * (2) No permit is taken that was not given.
 *
 * -DBUG=n plants a fault that the check must find.
 * BUG 1: the recovery frees the places of the dead, and grants no others: the dead may have chosen one to wake.
 * BUG 2: who has taken a permit after a look does not pass on the wake-up that had been decided for it.
 * BUG 3: a waiter looks for a permit, and enlists after that, without the guard around both.
 * BUG 4: the recovery does not hold the guard: one that it has woken sleeps again before it has come to the place of the dead, which
 *        is chosen to be woken instead.
 *
 * check: -DWAITERS=2 -DRELEASERS=1 -DKILLS=1 -DLOOKS=1
 * check: -DWAITERS=2 -DRELEASERS=2 -DKILLS=0 -DLOOKS=1
 * long: -DWAITERS=2 -DRELEASERS=2 -DKILLS=1 -DLOOKS=0
 * long: -DWAITERS=3 -DRELEASERS=2 -DKILLS=0 -DLOOKS=0
 * fault: -DWAITERS=2 -DRELEASERS=2 -DKILLS=1 -DLOOKS=0 -DBUG=1
 * fault: -DWAITERS=2 -DRELEASERS=2 -DKILLS=0 -DLOOKS=1 -DBUG=2
 * fault: -DWAITERS=2 -DRELEASERS=2 -DKILLS=0 -DLOOKS=0 -DBUG=3
 * fault: -DWAITERS=2 -DRELEASERS=1 -DKILLS=1 -DLOOKS=1 -DBUG=4
 */
#ifndef BUG
#define BUG 0
#endif
#define PROCESSES (WAITERS + RELEASERS)
#define PLACES WAITERS

#define WAITING 1
#define GRANTED 2

byte available = 0;
byte given = 0;
byte taken = 0;

/* The set, and who sleeps on the word of which place. Places are numbered from 1. */
byte owner[PLACES + 1];
byte state[PLACES + 1];
bool bit_of[PLACES + 1];
bool asleep[PLACES + 1];

/* The recovery holds the guard for as long as it lasts; for all others what they do with it is one step. */
bool guarded = false;

bool dead[PROCESSES + 1];
bool done[PROCESSES + 1];

/* Chooses one whose bit is set; clearing the bit decides it. */
inline wake_one(p) {
    if
    :: d_step { bit_of[1] -> bit_of[1] = false; p = 1 }
    :: d_step { bit_of[2] -> bit_of[2] = false; p = 2 }
    :: d_step { bit_of[PLACES] -> bit_of[PLACES] = false; p = PLACES }
    :: !bit_of[1] && !bit_of[2] && !bit_of[PLACES] -> p = 0
    fi;
    if
    :: p != 0 -> state[p] = GRANTED; asleep[p] = false
    :: else
    fi
}

proctype waiter(byte id) {
    byte place = 0;
    byte looks = 0;
    byte chosen = 0;
    bool late = false;
    bool has = false;
    {
        do
        :: d_step { !guarded && available > 0 -> available--; taken++ } break
        :: d_step {
                !guarded && available == 0 ->
#if BUG == 3
                place = 1
            }
            d_step {
                !guarded ->
#endif
                place = 1;
                do
                :: owner[place] != 0 -> place++
                :: else -> break
                od;
                owner[place] = id;
                state[place] = WAITING;
                bit_of[place] = true
            }
            do
            :: true ->
                true;
                d_step {
                    if
                    :: state[place] == WAITING -> asleep[place] = true
                    :: else
                    fi
                }
end_asleep:
                if
                :: !asleep[place]
                :: d_step { asleep[place] && looks < LOOKS -> looks++; asleep[place] = false }
                :: d_step { asleep[place] && id == 1 -> late = true; asleep[place] = false }
                fi;
                if
                :: state[place] == GRANTED ->
                    bit_of[place] = false;
                    break    /* leaves the place, and looks again */
                :: else
                fi;
                bit_of[place] = true;
                d_step {
                    !guarded ->
                    if
                    :: available > 0 -> available--; taken++; has = true
                    :: else
                    fi
                }
                if
                :: has || late ->
                    /* Takes its bit back. Where it is gone, a waker is about to write into the place. */
                    d_step { chosen = !bit_of[place]; bit_of[place] = false }
                    if
                    :: !chosen || state[place] == GRANTED
                    :: chosen    /* it may wait no longer for a waker that is slow */
                    fi;
                    d_step { owner[place] = 0; place = 0 }
#if BUG != 2
                    if
                    :: chosen -> wake_one(chosen)
                    :: else
                    fi;
#endif
                    goto finished
                :: else
                fi
            od;
            true;
            d_step { owner[place] = 0; place = 0 }
            if
            :: late ->
                d_step {
                    !guarded ->
                    if
                    :: available > 0 -> available--; taken++; has = true
                    :: else
                    fi
                }
                if
                :: !has -> wake_one(chosen)    /* it was woken for nothing */
                :: else
                fi;
                break
            :: else
            fi
        od;
finished:
        done[id] = true
    } unless {
        d_step { dead[id] -> place = 0; looks = 0; chosen = 0; late = false; has = false }
    }
}

proctype releaser(byte id) {
    byte chosen = 0;
    {
        d_step { !guarded -> available++; given++ }
        wake_one(chosen);
        done[id] = true
    } unless {
        d_step { dead[id] -> chosen = 0 }
    }
}

/* WaitSet::recover() for each of the dead. */
proctype recoverer() {
    byte id = 0;
    byte p = 0;
    bool recovered[PROCESSES + 1];
end:
    do
    :: atomic {
            if
            :: dead[1] && !recovered[1] -> id = 1
            :: dead[2] && !recovered[2] -> id = 2
            :: dead[3] && !recovered[3] -> id = 3
            :: PROCESSES > 3 && dead[PROCESSES] && !recovered[PROCESSES] -> id = PROCESSES
            :: PROCESSES > 4 && dead[PROCESSES - 1] && !recovered[PROCESSES - 1] -> id = PROCESSES - 1
            fi
        }
#if BUG != 4
        guarded = true;
#endif
        p = 1;
        do
        :: p <= PLACES ->
            if
            :: owner[p] == 0
            :: d_step { owner[p] == id -> bit_of[p] = false; owner[p] = 0; asleep[p] = false }
#if BUG == 1
            :: owner[p] != 0 && owner[p] != id
#else
            :: d_step { owner[p] != 0 && owner[p] != id -> bit_of[p] = false }
                state[p] = GRANTED;
                asleep[p] = false
#endif
            fi;
            p++
        :: else -> break
        od;
        true;
        d_step { guarded = false; recovered[id] = true; id = 0; p = 0 }
    od
}

proctype killer() {
    byte kills = 0;
    byte victim = 0;
    do
    :: atomic {
            kills < KILLS ->
            select (victim : 1 .. PROCESSES);
            if
            :: !dead[victim] && !done[victim] -> dead[victim] = true
            :: kills = KILLS - 1    /* and no more */
            fi;
            victim = 0;
            kills++
        }
    :: kills == KILLS -> break
    od
}

init {
    byte i = 1;
    atomic {
        do
        :: i <= WAITERS -> run waiter(i); i++
        :: i > WAITERS && i <= PROCESSES -> run releaser(i); i++
        :: else -> break
        od;
        run killer();
        run recoverer()
    }
    timeout;
    d_step {
        assert(taken <= given && available == given - taken);
        i = 1;
        do
        :: i > PLACES -> break
        :: else -> assert(available == 0 || !asleep[i] || owner[i] == 0 || dead[owner[i]]); i++
        od
    }
}
