package osdisk

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// locks are those that this process holds.
var locks struct {
	sync.Mutex
	held map[*lockFile]struct{}
}

func (l *lockFile) note() {
	locks.Lock()
	defer locks.Unlock()
	if locks.held == nil {
		locks.held = make(map[*lockFile]struct{})
	}
	locks.held[l] = struct{}{}
}

func (l *lockFile) forget() {
	locks.Lock()
	defer locks.Unlock()
	delete(locks.held, l)
}

// left is set by Leave. Every call that changes or opens a file checks it.
var left atomic.Bool

// stay keeps a call for ever that comes after Leave.
func stay() {
	if left.Load() {
		select {}
	}
}

// leaveRest is how long Leave waits for calls that came before it to be in the kernel.
const leaveRest = 20 * time.Millisecond

// Leave gives back all locks that the process holds. It is for a process that is about
// to end while a disk may hang: the kernel gives locks back only when the last thread has
// ended, and a thread that waits for a disk may never end.
//
// From here on no call changes a file. A call that would never returns, so nothing more
// is acknowledged. Whoever gets the locks meets no more changes of this process, except
// by calls that are in the kernel already.
//
// Leave does not wait for disks, but a file system may have to ask another machine to
// give a lock back. Leave returns the names of locks that were not given back within
// patience.
func Leave(patience time.Duration) (kept []string) {
	left.Store(true)
	time.Sleep(leaveRest)
	locks.Lock()
	back := make(chan *lockFile, len(locks.held))
	waits := make(map[*lockFile]struct{}, len(locks.held))
	for l := range locks.held {
		waits[l] = struct{}{}
		go func() {
			if l.Unlock() == nil {
				back <- l
			}
		}()
	}
	locks.Unlock()
	end := time.After(patience)
	for len(waits) > 0 {
		select {
		case l := <-back:
			delete(waits, l)
			continue
		case <-end:
		}
		break
	}
	for l := range waits {
		kept = append(kept, l.name)
	}
	slices.Sort(kept)
	return kept
}
