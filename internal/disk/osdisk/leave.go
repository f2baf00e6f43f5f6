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

// left is set by Leave. Every call looks at it that changes files, or opens one.
var left atomic.Bool

// stay keeps a call for ever that comes after Leave.
func stay() {
	if left.Load() {
		select {}
	}
}

// leaveRest is how long Leave waits for calls that came before it to be in the kernel.
const leaveRest = 20 * time.Millisecond

// Leave is for a process that is about to end at once, while a disk may hang: it
// gives back all locks that the process holds, which the kernel does only when its
// last thread has ended, and one that waits for a disk may not. From here on no call
// changes a file any more, and none that comes to do so returns: nothing more is
// acknowledged, and whoever gets the locks meets no change of this process, but of
// calls that are in the kernel already.
//
// It does not wait for disks, but a file system may ask another machine to give a
// lock back. Which were not given back when patience has passed is returned.
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
