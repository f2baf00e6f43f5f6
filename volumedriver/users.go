package volumedriver

import (
	"context"
	"fmt"
	"sync"
	"time"

	"openvstorage/internal/broadcast"
	"openvstorage/internal/counted"
)

// users counts those who have opened a vDisk or its snapshots, and keeps others out
// while it is rolled back and when it is deleted. Its lock is held for a moment; that of
// the snapshot tree comes after it.
type users struct {
	*core

	mu      sync.Mutex
	devices int                 // users of the vDisk itself
	readers int                 // users of its snapshots
	left    broadcast.Broadcast // a user goes
	deleted bool                // a deletion has claimed the vDisk
	rolling chan struct{}       // closed at the end of a rollback under way, for which newcomers wait; else nil
}

// enter counts a user of the vDisk, or of a snapshot of it, if admit returns nil,
// which is told whether a deletion has claimed the vDisk. It waits for the end of a
// rollback, which users of snapshots do not mind. admit must not wait.
func (u *users) enter(ctx context.Context, snapshot bool, admit func(deleted bool) error) error {
	u.mu.Lock()
	for u.rolling != nil && !snapshot {
		rolling := u.rolling
		u.mu.Unlock()
		select {
		case <-rolling:
		case <-ctx.Done():
			return ctx.Err()
		}
		u.mu.Lock()
	}
	defer u.mu.Unlock()
	if err := admit(u.deleted); err != nil {
		return err
	}
	if snapshot {
		u.readers++
	} else {
		u.devices++
	}
	return nil
}

// leave takes back what enter counted.
func (u *users) leave(snapshot bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if snapshot {
		u.readers--
	} else {
		u.devices--
	}
	u.left.Send()
}

// After claim nobody can open the vDisk, as it is about to be deleted. It refuses if
// pinned reports that a snapshot is being cloned or rolled back to, and unless force is
// set if the vDisk or a snapshot is in use.
func (u *users) claim(force bool, pinned func() bool) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if pinned() {
		return fmt.Errorf("vDisk %q: being cloned; wait for it: %w", u.Name(), ErrBusy)
	}
	if n := u.devices + u.readers; n > 0 && !force {
		return u.inUse(n)
	}
	u.deleted = true
	return nil
}

// setDeleted says whether a deletion has claimed the vDisk.
func (u *users) setDeleted(deleted bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.deleted = deleted
}

// leaving reports whether a deletion has claimed the vDisk.
func (u *users) leaving() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.deleted
}

// leaveWait is how long a deletion or a rollback waits for users that are about to leave: a
// client may see its connection closed before the server has released the vDisk.
const leaveWait = 500 * time.Millisecond

// waitUnused waits for the last user of the vDisk to go, and with snapshots for the last
// user of those too, but not for long: at most leaveWait.
func (u *users) waitUnused(ctx context.Context, snapshots bool) {
	ctx, cancel := context.WithTimeout(ctx, leaveWait)
	defer cancel()
	for {
		left := u.left.Next()
		u.mu.Lock()
		used := u.devices > 0 || snapshots && u.readers > 0
		u.mu.Unlock()
		if !used {
			return
		}
		select {
		case <-left:
		case <-ctx.Done():
			return
		}
	}
}

// keepOut lets nobody begin to use the vDisk until opened is called; users of snapshots
// come and go. Unless force is set it refuses if somebody uses the vDisk now. Whoever
// calls it has the management lock.
func (u *users) keepOut(force bool) (opened func(), err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.devices > 0 && !force {
		return nil, u.inUse(u.devices)
	}
	rolling := make(chan struct{})
	u.rolling = rolling
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.rolling = nil
		close(rolling)
	}, nil
}

// inUse is the error of an operation that users of the vDisk forbid.
func (c *core) inUse(users int) error {
	return fmt.Errorf("vDisk %q: in use by %s; disconnect first, or give --force: %w", c.Name(), counted.Of(users, "connection", "connections"), ErrBusy)
}
