/*
 * The robust lock (src/shm/robust_lock.cpp), with processes that may be killed between any two steps.
 *
 * N contenders lock and unlock ROUNDS times each; up to KILLS of them are killed, wherever they are; a recovery, which the
 * survivors do between them, runs for each of the dead, once or twice. The last contender may give up whenever it sleeps, as with a
 * time-out. Sleeps have no bound, as the real ones have: a lost wake-up is a deadlock here, and not a delay.
 *
 * A compare-and-swap that fails changes nothing and is tried again with what it found, so reading and swapping are one step here.
 * Not one step: marking the word and going to sleep on what it was; releasing it and waking somebody.
 *
 * Held to
 * (1) Mutual exclusion: the lock is taken when it is free, or left by a dead owner whose recovery has run.
 * (2) Who takes the lock is told that an owner died exactly when one did and nobody has said since that the data is whole.
 * (3) Who has taken the lock has it until it unlocks it: unlocking by the owner succeeds.
 * (4) No survivor sleeps for ever: there is no state without a next step but those in which everybody is done or dead.
 *
 * -DBUG=n plants a fault that the check must find.
 * BUG 1: who has slept takes the lock without the mark that others may sleep still.
 * BUG 2: the recovery leaves the lock as if it had been unlocked.
 * BUG 3: the recovery wakes nobody where the dead was not the owner: it may have been woken, and not have passed it on.
 * BUG 4: unlocking wakes somebody first, and releases the lock then.
 *
 * check: -DROUNDS=1 -DKILLS=2
 * check: -DROUNDS=2 -DKILLS=1
 * long: -DROUNDS=2 -DKILLS=2
 * fault: -DROUNDS=1 -DKILLS=2 -DBUG=1
 * fault: -DROUNDS=1 -DKILLS=2 -DBUG=2
 * fault: -DROUNDS=1 -DKILLS=2 -DBUG=3
 * fault: -DROUNDS=1 -DKILLS=2 -DBUG=4
 */
#ifndef N
#define N 3
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif
#ifndef KILLS
#define KILLS 2
#endif
#ifndef BUG
#define BUG 0
#endif

/* The word: who owns it (0: nobody), and two flags. */
#define OWNER(w) ((w) & 7)
#define ORPHANED 8
#define WAITERS 16
byte word = 0;

bool asleep[N + 1];    /* on the word; a killed process is none that sleeps */
bool dead[N + 1];
bool done[N + 1];

/* What is true, for the assertions; no process acts on it. */
byte holder = 0;
bool unrepaired = false;

inline wake_one() {
    if
    :: atomic { asleep[1] -> asleep[1] = false }
    :: atomic { asleep[2] -> asleep[2] = false }
    :: atomic { asleep[N] -> asleep[N] = false }
    :: atomic { !asleep[1] && !asleep[2] && !asleep[N] }
    fi
}

inline wake_all() {
    d_step { asleep[1] = false; asleep[2] = false; asleep[N] = false }
}

proctype contender(byte id) {
    byte seen = 0;
    byte mark = 0;    /* WAITERS once this one has slept: others may still sleep */
    byte round = 0;
    bool late = false;
    {
        do
        :: round < ROUNDS ->
            do
            :: d_step {
                    OWNER(word) == 0 ->
                    assert(holder == 0);
                    holder = id;
                    assert(((word & ORPHANED) != 0) == unrepaired);
#if BUG == 1
                    word = id | (word & ORPHANED);
#else
                    word = id | word | mark;
#endif
                    mark = 0;
                    late = false
                }
                break
            :: d_step {
                    OWNER(word) != 0 ->
                    word = word | WAITERS;
                    mark = WAITERS;
                    seen = word
                }
                if
                :: late -> goto next
                /* futex_wait: the kernel compares and goes to sleep in one step. */
                :: d_step { !late && word == seen -> asleep[id] = true; seen = 0 }
                :: d_step { !late && word != seen -> seen = 0 }
                fi;
                if
                :: !asleep[id]
                :: d_step { id == N && asleep[id] -> asleep[id] = false; late = true }    /* its time is over */
                fi
            od;

            /* Here it changes what the lock protects. Then it may say that the data is whole, if it had been told otherwise. */
            if
            :: d_step { word & ORPHANED -> assert(holder == id); word = word & ~ORPHANED; unrepaired = false }
            :: holder == id
            fi;

#if BUG == 4
            if
            :: (word & WAITERS) != 0 -> wake_one()
            :: else
            fi;
#endif
            d_step {
                assert(holder == id && OWNER(word) == id);
                holder = 0;
                seen = word;
                word = word & ORPHANED
            }
#if BUG != 4
            if
            :: (seen & WAITERS) != 0 -> wake_one()
            :: else
            fi;
#endif
next:
            true;
            d_step { seen = 0; mark = 0; late = false; round++ }
        :: else -> break
        od;
        done[id] = true
    } unless {
        d_step { dead[id] -> seen = 0; mark = 0; round = 0; late = false }
    }
}

/* Death comes from outside, between any two steps of its victim. */
proctype killer() {
    byte kills = 0;
    byte victim;
    do
    :: atomic {
            kills < KILLS ->
            if
            :: !dead[1] && !done[1] -> victim = 1
            :: !dead[2] && !done[2] -> victim = 2
            :: !dead[N] && !done[N] -> victim = N
            :: kills = KILLS - 1    /* and no more */
            fi;
            dead[victim] = true;
            asleep[victim] = false;
            victim = 0;
            kills++
        }
    :: kills == KILLS -> break
    od
}

/* RobustLock::recover() for each of the dead, by whichever survivor comes first: one at a time. */
proctype recoverer() {
    byte id = 0;
    bool again = true;
    bool recovered[N + 1];
end:
    do
    :: atomic {
            if
            :: dead[1] && !recovered[1] -> id = 1
            :: dead[2] && !recovered[2] -> id = 2
            :: dead[N] && !recovered[N] -> id = N
            fi
        }
        do
        :: true ->
            if
            :: d_step {
                    OWNER(word) == id ->
                    assert(holder == id);
                    holder = 0;
                    unrepaired = true;
#if BUG == 2
                    word = 0
#else
                    word = ORPHANED
#endif
                }
                wake_all()
#if BUG == 3
            :: OWNER(word) != id
#else
            :: OWNER(word) != id -> wake_all()
#endif
            fi;
            if
            :: again -> again = false    /* the first to recover died over it */
            :: break
            fi
        od;
        true;
        d_step { recovered[id] = true; again = true; id = 0 }
    od
}

init {
    byte i = 1;
    atomic {
        do
        :: i <= N -> run contender(i); i++
        :: else -> break
        od;
        run killer();
        run recoverer()
    }
}
