/*
 * The wait set (src/shm/wait_set.cpp), with processes that may be killed between any two steps, and both loops around it: that of
 * src/sync/wait.hpp, which looks and enlists under the object's guard, and with -DQUEUE that of src/channel/queue.cpp, which enlists
 * first and then looks once more.
 *
 * SLEEPERS processes take one permit (or message) each, of which there is none at first, and GIVERS processes give one each. What
 * stands under a lock is one step (locks are lock.pml's). The first sleeper has a deadline. Each may wake up by itself LOOKS times, as
 * when the bound of its sleep is over, but nothing relies on that: without it, a lost wake-up shows. Up to KILLS processes are
 * killed; a recovery runs for each of the dead, without any lock.
 *
 * Held to
 * (1) When nobody can do anything more, no survivor sleeps beside a permit.
 * (2) No permit is taken that was not given.
 *
 * -DBUG=n plants a fault that the check must find.
 * BUG 1: the recovery frees the places of the dead, and grants no others: the dead may have chosen one to wake.
 * BUG 2: who has taken a permit in a look does not pass on the wake-up that had been decided for it.
 * BUG 3: a sleeper looks for a permit, and enlists after that.
 * BUG 4: the recovery goes over the places once: one that it has granted sleeps again before it comes to the place of the dead, whose
 *        bit a giver chooses meanwhile.
 * BUG 5: who wakes up by itself sets its bit again, though somebody may be about to grant: two wake-ups are decided for it.
 *
 * check: -DSLEEPERS=2 -DGIVERS=1 -DKILLS=1 -DLOOKS=0
 * check: -DSLEEPERS=2 -DGIVERS=2 -DKILLS=0 -DLOOKS=1
 * check: -DSLEEPERS=2 -DGIVERS=1 -DKILLS=1 -DLOOKS=0 -DQUEUE
 * check: -DSLEEPERS=2 -DGIVERS=2 -DKILLS=0 -DLOOKS=1 -DQUEUE
 * long: -DSLEEPERS=2 -DGIVERS=1 -DKILLS=1 -DLOOKS=1
 * long: -DSLEEPERS=2 -DGIVERS=1 -DKILLS=1 -DLOOKS=1 -DQUEUE
 * long: -DSLEEPERS=2 -DGIVERS=2 -DKILLS=1 -DLOOKS=0
 * long: -DSLEEPERS=2 -DGIVERS=2 -DKILLS=1 -DLOOKS=0 -DQUEUE
 * long: -DSLEEPERS=3 -DGIVERS=2 -DKILLS=0 -DLOOKS=0
 * fault: -DSLEEPERS=2 -DGIVERS=2 -DKILLS=1 -DLOOKS=0 -DBUG=1
 * fault: -DSLEEPERS=2 -DGIVERS=2 -DKILLS=0 -DLOOKS=1 -DBUG=2
 * fault: -DSLEEPERS=2 -DGIVERS=2 -DKILLS=0 -DLOOKS=0 -DBUG=3
 * fault: -DSLEEPERS=2 -DGIVERS=1 -DKILLS=1 -DLOOKS=0 -DBUG=4 -DQUEUE
 * fault: -DSLEEPERS=2 -DGIVERS=2 -DKILLS=0 -DLOOKS=1 -DBUG=5 -DQUEUE
 */
#ifndef BUG
#define BUG 0
#endif
#define PROCESSES (SLEEPERS + GIVERS)
#define PLACES SLEEPERS

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

bool dead[PROCESSES + 1];
bool done[PROCESSES + 1];

/* Chooses one whose bit is set: clearing the bit decides it. Then tells it. */
inline wake_one(p) {
    if
    :: d_step { bit_of[1] -> bit_of[1] = false; p = 1 }
    :: d_step { bit_of[2] -> bit_of[2] = false; p = 2 }
    :: d_step { bit_of[PLACES] -> bit_of[PLACES] = false; p = PLACES }
    :: !bit_of[1] && !bit_of[2] && !bit_of[PLACES] -> p = 0
    fi;
    if
    :: p != 0 -> state[p] = GRANTED; asleep[p] = false; p = 0
    :: else
    fi
}

/* Takes the bit back, and leaves the place; `chosen` says that a wake-up had been decided. */
inline withdraw() {
    d_step { chosen = !bit_of[place]; bit_of[place] = false }
    if
    :: !chosen || state[place] == GRANTED
    :: chosen    /* it does not wait for ever for a waker that is slow */
    fi;
    d_step { owner[place] = 0; place = 0 }
}

/* Takes the first free place. */
inline enlist() {
    place = 1;
    do
    :: owner[place] != 0 -> place++
    :: else -> break
    od;
    owner[place] = id;
    state[place] = WAITING;
    bit_of[place] = true
}

/* Takes a permit where there is one. */
inline attempt() {
    d_step {
        if
        :: available > 0 -> available--; taken++; has = true
        :: else
        fi
    }
}

/* WaitSet::sleep(): `woken` where it was woken, and has left its place. */
inline sleep() {
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
    woken = (state[place] == GRANTED);
    if
    :: woken -> bit_of[place] = false
    :: else ->
#if BUG == 5
        bit_of[place] = true
#else
        /* A bit that is gone is a decision: as good as a grant, should the waker die before it says so. */
        if
        :: bit_of[place]
        :: !bit_of[place] ->
            if
            :: state[place] == GRANTED
            :: true
            fi;
            woken = true
        fi
#endif
    fi;
    if
    :: woken -> d_step { owner[place] = 0; place = 0 }
    :: else
    fi
}

proctype sleeper(byte id) {
    byte place = 0;
    byte looks = 0;
    byte chosen = 0;
    bool late = false;
    bool woken = false;
    bool has = false;
    {
#ifdef QUEUE
        do
        :: true ->
            attempt();
            if
            :: has || late -> break
            :: else
            fi;
#if BUG == 3
            available == 0;
#endif
            d_step { enlist() }
            if
            :: BUG != 3 && available > 0 ->
                withdraw();
                if
                :: chosen -> wake_one(chosen)
                :: else
                fi
            :: BUG == 3 || available == 0 ->
                sleep();
                if
                :: woken
                :: else -> withdraw()
                fi
            fi;
            d_step { woken = false; chosen = 0 }
        od;
#else
        do
        :: d_step { available > 0 -> available--; taken++; has = true } break
        :: d_step {
                available == 0 ->
#if BUG == 3
                place = 1
            }
            d_step {
                true;
#endif
                enlist()
            }
            do
            :: true ->
                sleep();
                if
                :: woken && !late -> break
                :: else
                fi;
                attempt();
                if
                :: woken && !has -> wake_one(chosen)    /* it was woken for nothing, and leaves */
                :: !woken && (has || late) ->
                    withdraw();
#if BUG != 2
                    if
                    :: chosen -> wake_one(chosen)
                    :: else
                    fi;
#endif
                    true
                :: else
                fi;
                if
                :: has || late -> goto finished
                :: else
                fi
            od;
            woken = false
        od;
#endif
finished:
        done[id] = true
    } unless {
        d_step { dead[id] -> place = 0; looks = 0; chosen = 0; late = false; woken = false; has = false }
    }
}

proctype giver(byte id) {
    byte chosen = 0;
    {
        d_step { available++; given++ }
        wake_one(chosen);
        done[id] = true
    } unless {
        d_step { dead[id] -> chosen = 0 }
    }
}

/* WaitSet::recover() for each of the dead: first it frees the places of the dead, then it grants all others. */
proctype recoverer() {
    byte id = 0;
    byte p = 1;
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
        do
        :: p <= PLACES ->
            if
            :: d_step { owner[p] == id -> bit_of[p] = false; owner[p] = 0; asleep[p] = false }
#if BUG == 4
            :: d_step { owner[p] != 0 && owner[p] != id -> bit_of[p] = false }
                state[p] = GRANTED;
                asleep[p] = false
            :: owner[p] == 0
#else
            :: owner[p] != id
#endif
            fi;
            p++
        :: else -> break
        od;
        p = 1;
#if BUG != 1 && BUG != 4
        do
        :: p <= PLACES ->
            if
            :: d_step { owner[p] != 0 -> bit_of[p] = false }
                state[p] = GRANTED;
                asleep[p] = false
            :: owner[p] == 0
            fi;
            p++
        :: else -> break
        od;
#endif
        true;
        d_step { recovered[id] = true; id = 0; p = 1 }
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
        :: i <= SLEEPERS -> run sleeper(i); i++
        :: i > SLEEPERS && i <= PROCESSES -> run giver(i); i++
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
