/*
 * The queue (src/channel/queue.cpp), with processes that may be killed between any two steps.
 *
 * PUTTERS processes put PER messages each, each in a block on loan; TAKERS processes take what there is, look at it where it lies
 * and give the block back. Up to KILLS of them are killed, wherever they are. A recovery runs for each of the dead, and may itself be
 * cut off once (STUMBLES) and begun again by another. Waiting for a lock, for a message or for room is a guard here: that no wake-up
 * is lost is lock.pml's and wait_set.pml's to show.
 *
 * Held to
 * (1) A message whose put() has returned has been taken, or is in the queue.
 * (2) No message is taken twice, or before an older one of its putter.
 * (3) No message is torn: what a taker reads, in the slot and in the block, was written as a whole, and nobody writes it meanwhile.
 * (4) When nobody can do anything more, each block is free and in the list, or on loan to a living process, or a message's in the
 *     queue. None is freed twice.
 * (5) Nobody who could go on is kept waiting: no lock is held, no taker waits beside a message, no putter beside a block and room.
 *
 * -DBUG=n plants a fault that the check must find.
 * BUG 1: the putter's place is one word, and moves before the total does.
 * BUG 2: no note is taken of a block that is on its way in.
 * BUG 3: no note is taken of a block that is on its way out.
 * BUG 4: the total moves before the slot is written.
 * BUG 5: the putters may write over a message before it was copied out.
 * BUG 6: a recovery that finds a lock held by a recovery before it makes nothing right.
 * BUG 7: who repairs frees the block of a message that a dead process was putting or taking: should he die before he has struck the
 *        note out, the next frees it again, whosever it is by then.
 *
 * check: -DPUTTERS=1 -DPER=2 -DTAKERS=1 -DKILLS=1 -DSTUMBLES=1
 * check: -DPUTTERS=2 -DPER=1 -DTAKERS=1 -DKILLS=1 -DSTUMBLES=0
 * long: -DPUTTERS=1 -DPER=2 -DTAKERS=2 -DKILLS=1 -DSTUMBLES=1
 * long: -DPUTTERS=1 -DPER=3 -DTAKERS=1 -DKILLS=2 -DSTUMBLES=1 -DSLOTS=1
 * fault: -DPUTTERS=2 -DPER=1 -DTAKERS=1 -DKILLS=1 -DSTUMBLES=0 -DBUG=1
 * fault: -DPUTTERS=1 -DPER=2 -DTAKERS=1 -DKILLS=1 -DSTUMBLES=0 -DBUG=2
 * fault: -DPUTTERS=1 -DPER=2 -DTAKERS=1 -DKILLS=1 -DSTUMBLES=0 -DBUG=3
 * fault: -DPUTTERS=1 -DPER=2 -DTAKERS=1 -DKILLS=0 -DSTUMBLES=0 -DBUG=4
 * fault: -DPUTTERS=1 -DPER=2 -DTAKERS=1 -DKILLS=0 -DSTUMBLES=0 -DSLOTS=1 -DBUG=5
 * fault: -DPUTTERS=1 -DPER=2 -DTAKERS=1 -DKILLS=1 -DSTUMBLES=1 -DBUG=6
 * fault: -DPUTTERS=1 -DPER=2 -DTAKERS=1 -DKILLS=1 -DSTUMBLES=1 -DBUG=7
 */
#ifndef BUG
#define BUG 0
#endif
#define PROCESSES (PUTTERS + TAKERS)
#define MESSAGES (PUTTERS * PER)
#ifndef SLOTS
#define SLOTS 2
#endif
#define BLOCKS 2
#define RECOVERER 7

/* The three locks: owner, and whether an owner died. */
#define PUT 0
#define TAKE 1
#define BLOCK 2
byte owner[3];
bool orphaned[3];

byte put_total = 0;
byte taken_total = 0;
byte progress = 0;
byte put_at[2];
byte take_at[2];

/* A message is a number, written twice to see whether it is whole. */
byte slot_begin[SLOTS];
byte slot_block[SLOTS];
byte slot_end[SLOTS];

/* Notes of what is on its way in, and out. */
byte put_note = 0;
byte put_note_total = 0;
byte put_note_block = 0;
byte take_note = 0;
byte take_note_total = 0;
byte take_note_block = 0;

/* Blocks are numbered from 1. On loan to process n: LOANED + n. */
#define FREE 0
#define QUEUED 1
#define LOANED 2
byte block_state[BLOCKS + 1];
bool listed[BLOCKS + 1];
byte block_begin[BLOCKS + 1];
byte block_end[BLOCKS + 1];

bool dead[PROCESSES + 1];
bool recovered[PROCESSES + 1];
bool done[PROCESSES + 1];
bool stumble = false;

/* What is true, for the assertions. */
bool returned[MESSAGES + 1];
bool taken[MESSAGES + 1];

inline unlock(l) { owner[l] = 0 }

inline push_free(b) {
    block_state[b] = FREE;
    d_step { assert(!listed[b]); listed[b] = true }
}

/* Takes a lock, also one that was left by a dead owner whom no recovery has come to yet. */
inline lock(l, me) {
    if
    :: atomic { owner[l] == 0 -> owner[l] = me }
    :: d_step { owner[l] != 0 && owner[l] != RECOVERER && dead[owner[l]] -> owner[l] = me; orphaned[l] = true }
    /* The recovery finds a lock that a recovery before it was cut off with. */
#if BUG == 6
    :: me == RECOVERER && owner[l] == RECOVERER
#else
    :: d_step { me == RECOVERER && owner[l] == RECOVERER -> orphaned[l] = true }
#endif
    fi
}

/* Whoever takes the blocks' lock after a dead owner makes the list anew from the states. */
inline repair_blocks() {
    if
    :: orphaned[BLOCK] ->
        d_step { listed[1] = block_state[1] == FREE; listed[2] = block_state[2] == FREE }
        orphaned[BLOCK] = false
    :: else
    fi
}

/* What a dead process was putting, and has not put, is still its own: its recovery gives it back. */
inline repair_put(me) {
    if
    :: orphaned[PUT] ->
        if
        :: put_note != 0 && put_note_total == put_total && block_state[put_note_block] == QUEUED ->
#if BUG == 7
            lock(BLOCK, me);
            repair_blocks();
            push_free(put_note_block);
            unlock(BLOCK)
#else
            block_state[put_note_block] = LOANED + put_note
#endif
        :: else
        fi;
        put_note = 0;
        orphaned[PUT] = false
    :: else
    fi
}

/* What it had taken is its own as well. */
inline repair_take(me) {
    if
    :: orphaned[TAKE] ->
        if
        :: take_note != 0 && taken_total > take_note_total && block_state[take_note_block] == QUEUED ->
#if BUG == 7
            lock(BLOCK, me);
            repair_blocks();
            push_free(take_note_block);
            unlock(BLOCK)
#else
            block_state[take_note_block] = LOANED + take_note
#endif
        :: else
        fi;
        take_note = 0;
        progress = take_at[taken_total % 2];
        orphaned[TAKE] = false
    :: else
    fi
}

inline give_back(b, me) {
    lock(BLOCK, me);
    repair_blocks();
    if
    :: block_state[b] == LOANED + me -> push_free(b)
    :: else
    fi;
    unlock(BLOCK)
}

proctype putter(byte id) {
    byte m = (id - 1) * PER + 1;
    byte b = 0;
    byte at = 0;
    {
        do
        :: m <= id * PER ->
loan:
            true;
end_loan:
            atomic {
                orphaned[BLOCK] || listed[1] || listed[2] || (owner[BLOCK] != 0 && owner[BLOCK] != RECOVERER && dead[owner[BLOCK]])
            }
            lock(BLOCK, id);
            repair_blocks();
            if
            :: listed[1] -> b = 1
            :: !listed[1] && listed[2] -> b = 2
            :: else -> unlock(BLOCK); goto loan
            fi;
            block_state[b] = LOANED + id;
            listed[b] = false;
            unlock(BLOCK);
            block_begin[b] = m;
            block_end[b] = m;

            true;
end_room:
            put_total - progress < SLOTS;
            lock(PUT, id);
            repair_put(id);
            if
            :: put_total - progress >= SLOTS -> unlock(PUT); goto end_room
            :: else
            fi;
#if BUG == 1
            at = put_at[0];
#else
            at = put_at[put_total % 2];
#endif
#if BUG == 4
            put_total++;
#endif
            d_step { slot_begin[at % SLOTS] = m; slot_block[at % SLOTS] = b }
            slot_end[at % SLOTS] = m;
#if BUG != 2
            d_step { put_note_total = put_total; put_note_block = b }
            put_note = id;
#endif
            block_state[b] = QUEUED;
#if BUG == 1
            put_at[0] = at + 1;
#elif BUG == 4
            put_at[put_total % 2] = at + 1;
#else
            put_at[(put_total + 1) % 2] = at + 1;
#endif
#if BUG != 4
            put_total++;
#endif
            put_note = 0;
            d_step { unlock(PUT); returned[m] = true; at = 0; b = 0; m++ }
        :: else -> break
        od;
        done[id] = true
    } unless {
        d_step { dead[id] -> m = 0; b = 0; at = 0 }
    }
}

proctype taker(byte id) {
    byte m = 0;
    byte b = 0;
    byte at = 0;
    {
        true;
again:
        true;
end_empty:
        put_total != taken_total;
        lock(TAKE, id);
        repair_take(id);
        if
        :: put_total == taken_total -> unlock(TAKE); goto again
        :: else
        fi;
        at = take_at[taken_total % 2];
#if BUG == 5
        progress = at + 1;
#endif
        d_step { m = slot_begin[at % SLOTS]; b = slot_block[at % SLOTS] }
        assert(m != 0 && slot_end[at % SLOTS] == m);
#if BUG != 3
        d_step { take_note_total = taken_total; take_note_block = b }
        take_note = id;
#endif
        take_at[(taken_total + 1) % 2] = at + 1;
        d_step {
            assert(!taken[m]);
            assert(m % PER == 1 % PER || taken[m - 1]);
            taken[m] = true;
            taken_total++
        }
        progress = at + 1;
        block_state[b] = LOANED + id;
        take_note = 0;
        unlock(TAKE);

        assert(block_begin[b] == m);
        assert(block_end[b] == m);
        give_back(b, id);
        d_step { m = 0; b = 0; at = 0 }
        goto again
    } unless {
        d_step { dead[id] -> m = 0; b = 0; at = 0 }
    }
}

inline leave_to_next(l) {
    d_step {
        if
        :: owner[l] == id -> owner[l] = 0; orphaned[l] = true
        :: else
        fi
    }
}

proctype recovery() {
    byte id = 0;
begin:
    {
        id = 0;
        true;
end:
        do
        :: atomic {
                if
                :: dead[1] && !recovered[1] -> id = 1
                :: dead[2] && !recovered[2] -> id = 2
                :: dead[PROCESSES] && !recovered[PROCESSES] -> id = PROCESSES
                fi
            }
            leave_to_next(PUT);
            leave_to_next(TAKE);
            leave_to_next(BLOCK);
            lock(PUT, RECOVERER);
            repair_put(RECOVERER);
            unlock(PUT);
            lock(TAKE, RECOVERER);
            repair_take(RECOVERER);
            unlock(TAKE);
            lock(BLOCK, RECOVERER);
            repair_blocks();
            if
            :: block_state[1] == LOANED + id -> push_free(1)
            :: else
            fi;
            if
            :: block_state[2] == LOANED + id -> push_free(2)
            :: else
            fi;
            unlock(BLOCK);
            recovered[id] = true
        od
    } unless {
        d_step { stumble -> stumble = false }
        goto begin
    }
}

proctype killer() {
    byte kills = 0;
    byte victim = 0;
    byte stumbles = 0;
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
    :: stumbles < STUMBLES -> stumble = true; stumbles++
    :: kills == KILLS && stumbles == STUMBLES -> break
    od
}

init {
    byte i = 1;
    byte in_queue[MESSAGES + 1];
    byte block_of[BLOCKS + 1];
    atomic {
        listed[1] = true;
        listed[2] = true;
        do
        :: i <= PUTTERS -> run putter(i); i++
        :: i > PUTTERS && i <= PROCESSES -> run taker(i); i++
        :: else -> break
        od;
        run killer();
        run recovery()
    }
    timeout;
    d_step {
        assert(owner[PUT] == 0 && owner[TAKE] == 0 && owner[BLOCK] == 0);
        /* What is in the queue is whole, in order, and each has its block. */
        i = taken_total;
        do
        :: i < put_total ->
            assert(slot_begin[i % SLOTS] != 0 && slot_begin[i % SLOTS] == slot_end[i % SLOTS]);
            assert(!taken[slot_begin[i % SLOTS]]);
            in_queue[slot_begin[i % SLOTS]]++;
            block_of[slot_block[i % SLOTS]]++;
            i++
        :: else -> break
        od;
        i = 1;
        do
        :: i <= MESSAGES -> assert(!returned[i] || (taken[i] && in_queue[i] == 0) || (!taken[i] && in_queue[i] == 1)); i++
        :: else -> break
        od;
        i = 1;
        do
        :: i <= BLOCKS ->
            assert(block_state[i] != FREE || (listed[i] && block_of[i] == 0));
            assert(block_state[i] != QUEUED || (!listed[i] && block_of[i] == 1));
            assert(block_state[i] < LOANED || (!listed[i] && block_of[i] == 0 && !dead[block_state[i] - LOANED]));
            i++
        :: else -> break
        od;
        i = 1;
        do
        :: i <= PUTTERS ->
            /* It may wait for room with a block in hand, or for a block. */
            assert(dead[i] || done[i] || put_total - taken_total == SLOTS || (!listed[1] && !listed[2]));
            i++
        :: i > PUTTERS && i <= PROCESSES -> assert(dead[i] || put_total == taken_total); i++
        :: else -> break
        od
    }
}
