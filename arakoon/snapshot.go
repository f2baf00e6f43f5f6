package arakoon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sync/atomic"
)

// A member that needs entries which the leader's log has dropped gets the leader's state
// instead. It takes five steps:
//
//  1. The leader's raft asks for a snapshot. A checkpoint of the state is made in the
//     background, and the log behind it is held (source).
//  2. raft sends a message that says which entry the state is at, and which files it has.
//  3. The member that gets it fetches the files, checks them, and makes them a state of
//     its own beside the one it has (incoming). It goes on serving that one.
//  4. Only then raft hears of the message, and asks for the snapshot to be stored: the log
//     begins anew behind it, and the new state takes the place of the old one (installer).
//  5. The leader hears that the member is there, and sends the entries that follow.

// ErrNoSnapshot: the member has no snapshot of that id any more. Nobody read it for a while,
// or the member was opened again. Its leader sends word of another one.
var ErrNoSnapshot = errors.New("arakoon: no such snapshot")

// Fetcher brings the files of another member's snapshot.
//
// Fetch returns nil when all files that Node.OpenSnapshot on member from lists are in dir,
// which exists and may hold some of them, or parts, from an earlier call. It need not sync
// them: the caller checks size and sum of each, syncs it, and removes what is not good. But
// a file of which a sync has failed must be removed. Fetch returns an error that matches
// ErrNoSnapshot where the other member says so, and soon after ctx has ended. It is called
// again after other errors, later. A node makes one call of Fetch at a time.
type Fetcher interface {
	Fetch(ctx context.Context, from uint64, id SnapshotID, dir string) error
	// Hold tells member from that a snapshot of it is needed still: it opens it, as reads do.
	// It is called every 10 s from the first call of Fetch until all is checked and in
	// place, also beside a call of Fetch. It returns as Fetch does.
	Hold(ctx context.Context, from uint64, id SnapshotID) error
}

// Snapshot is a member's open snapshot, to be served to another member. Its methods are safe
// for concurrent use.
type Snapshot struct {
	source *source
	made   *made
	closed atomic.Bool
}

// OpenSnapshot opens a snapshot that this member has made. The error matches ErrNoSnapshot
// if there is none of that id. A snapshot that nobody opens or reads for 30 s is dropped, open
// or not.
func (n *Node) OpenSnapshot(id SnapshotID) (*Snapshot, error) {
	if err := n.Err(); err != nil {
		return nil, err
	}
	return n.source.open(id)
}

// Files are the snapshot's files, by name.
func (s *Snapshot) Files() []SnapshotFile { return slices.Clone(s.made.files) }

// ReadAt reads of a file as an io.ReaderAt does. All reads of a member's snapshots together
// get Options.SnapshotBytesPerSecond, less while there is other work, and wait for their turn. It fails with ErrNoSnapshot
// once the snapshot was dropped or closed.
func (s *Snapshot) ReadAt(name string, p []byte, off int64) (n int, err error) {
	f, ok := fileNamed(s.made.files, name)
	switch {
	case !ok:
		return 0, fmt.Errorf("arakoon: snapshot %v has no file %q", s.made.id, name)
	case off < 0:
		return 0, fmt.Errorf("arakoon: snapshot %v: read of %s at %d", s.made.id, name, off)
	case s.closed.Load():
		return 0, fmt.Errorf("%w: %v was closed", ErrNoSnapshot, s.made.id)
	}
	left := max(f.Size-off, 0)
	short := int64(len(p)) > left
	if short {
		p = p[:left]
	}
	if n, err = s.source.read(s.made, name, p, off); err != nil {
		return n, err
	}
	if short {
		err = io.EOF
	}
	return n, err
}

// Close ends the use of the snapshot.
func (s *Snapshot) Close() {
	if !s.closed.Swap(true) {
		s.source.close(s.made)
	}
}

// read reads of a file of a checkpoint.
func (s *source) read(m *made, name string, p []byte, off int64) (int, error) {
	release, err := s.end.hold()
	if err != nil {
		return 0, err
	}
	defer release()
	if err := s.touch(m); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if err := s.pace.wait(len(p), s.end); err != nil {
		return 0, err
	}
	f, err := s.fs.OpenFile(path.Join(m.dir, name), 0, 0)
	if err != nil {
		if e := s.touch(m); e != nil {
			return 0, e // it went meanwhile
		}
		return 0, err
	}
	defer f.Close()
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return n, nil
	}
	return n, fmt.Errorf("arakoon: snapshot %v: read %s: %d bytes of %d: %w", m.id, f.Name(), n, len(p), err)
}
