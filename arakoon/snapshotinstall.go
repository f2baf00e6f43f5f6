package arakoon

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"strconv"
	"strings"
	"sync/atomic"

	"openvstorage/arakoon/raftlog"
	"openvstorage/arakoon/state"
	"openvstorage/internal/disk"

	pb "go.etcd.io/raft/v3/raftpb"
)

// A member takes another state in this order; N is the entry that it is at.
//
//  1. incoming-ID: the files are fetched there, checked, synced, and made this member's.
//     Nothing depends on them.
//  2. prepared-N: that directory under its next name, durably. It is a whole state, and
//     nothing depends on it either.
//  3. The log begins anew behind N (raftlog.Log.Reset). The sync that makes this durable is
//     the one moment at which the member changes: before it, log and old state belong
//     together and prepared-N goes; after it, log and prepared-N do.
//  4. state-N: its name in use. The new state is opened, and calls see it.
//  5. The old state goes when the last call that uses it has returned.
//
// So the log decides. A member that is opened finishes step 4 if the log begins at N and a
// prepared-N is there, and the state that it finds ends before that. It never takes a state
// that is ahead of its log, and what is missing is never a reason to remove anything: while
// the state in use cannot be opened, all directories stay (rule P8). Then what is left over
// goes, and state-N is called state again.
const (
	stateName        = "state"
	statePrefix      = "state-"    // and the index
	preparedPrefix   = "prepared-" // and the index
	incomingPrefix   = "incoming-" // and the id
	checkpointPrefix = "snapshot-" // and the id; made for other members
)

func indexed(prefix string, index uint64) string { return fmt.Sprintf("%s%016x", prefix, index) }

// indexOf is the index in a directory's name.
func indexOf(prefix, name string) (index uint64, ok bool) {
	hex, ok := strings.CutPrefix(name, prefix)
	if !ok || len(hex) != 16 {
		return 0, false
	}
	index, err := strconv.ParseUint(hex, 16, 64)
	return index, err == nil && indexed(prefix, index) == name
}

// stateDirs are the directories of a member's states.
type stateDirs struct {
	fs      disk.FS
	dir     string // the member's
	log     *raftlog.Log
	options func(dir string) state.Options
	logger  *slog.Logger

	use  string   // base name of the one in use
	left []string // what is of no use
}

// find finds out which state is in use, and finishes what a restart has cut short.
func (d *stateDirs) find() error {
	names, err := d.fs.ReadDir(d.dir)
	if err != nil {
		return err
	}
	begins := d.log.Marker().Index
	newest, prepared := uint64(0), ""
	d.use = stateName
	for _, name := range names {
		if n, ok := indexOf(preparedPrefix, name); ok && n == begins {
			prepared = name
		}
		n, ok := indexOf(statePrefix, name)
		if !ok {
			continue
		}
		if n > begins {
			return fmt.Errorf("%w: %s is at entry %d at least, and the log begins behind entry %d: it is an older one; restore both", ErrFailed, path.Join(d.dir, name), n, begins)
		}
		if n > newest {
			newest, d.use = n, name
		}
	}
	if prepared != "" && newest < begins {
		if err := d.finish(prepared, begins); err != nil {
			return err
		}
	}
	for _, name := range names {
		_, ready := indexOf(preparedPrefix, name)
		_, old := indexOf(statePrefix, name)
		if name != d.use && (name == stateName || old || ready) || strings.HasPrefix(name, incomingPrefix) || strings.HasPrefix(name, checkpointPrefix) {
			d.left = append(d.left, name)
		}
	}
	return nil
}

// finish puts a prepared state in use, unless the one that is there goes as far: the log
// may have come to the same entry by itself.
func (d *stateDirs) finish(prepared string, index uint64) error {
	if d.log.StateWas() > index {
		return nil
	}
	// A state that cannot be looked at was to go: all that it held is in the new one.
	if at, err := state.Peek(d.options(path.Join(d.dir, d.use))); err == nil && at.Index >= index {
		return nil
	}
	d.use = indexed(statePrefix, index)
	return d.swap(prepared)
}

// swap gives a prepared state, durably, its name in use. After an error that passes it may
// be called again.
func (d *stateDirs) swap(prepared string) error {
	err := d.fs.Rename(path.Join(d.dir, prepared), path.Join(d.dir, d.use))
	if errors.Is(err, fs.ErrNotExist) {
		_, err = d.fs.Stat(path.Join(d.dir, d.use)) // an earlier call has done it
	}
	if err != nil {
		return err
	}
	if err = d.fs.SyncDir(d.dir); err != nil && disk.SyncBegun(err) {
		// Whatever the cause is, nobody may sync again and believe it.
		return fmt.Errorf("the name of %s may not be durable: %v", path.Join(d.dir, d.use), err)
	}
	return err
}

// tidy removes what is of no use, and gives the state in use its usual name, if that state
// is good. It is called while that is not open. What cannot be done is left to the next
// opening.
func (d *stateDirs) tidy() {
	if len(d.left) == 0 && d.use == stateName {
		return
	}
	at, err := state.Peek(d.options(path.Join(d.dir, d.use)))
	if err != nil || at.Index < d.log.Marker().Index {
		return // opening it says what is wrong
	}
	for _, name := range d.left {
		err = errors.Join(err, d.fs.RemoveAll(path.Join(d.dir, name)))
	}
	// Durably before the old name is taken: it must not lead to a mix of both.
	if err == nil {
		err = d.fs.SyncDir(d.dir)
	}
	if err == nil && d.use != stateName {
		if err = d.fs.Rename(path.Join(d.dir, d.use), path.Join(d.dir, stateName)); err == nil {
			d.use = stateName
			err = d.fs.SyncDir(d.dir)
		}
	}
	if err != nil {
		d.logger.Warn("arakoon node cannot tidy up the directories of its state", slog.Any("error", err))
	}
}

// install does steps 3 to 5 of what is said above, with the directory that raft's message
// is about. The applier has nothing to do meanwhile: the stepper sees to that. It waits, as
// appends do, while there is no room. After any other error the node must be opened again,
// which finishes it.
func (a *appender) install(m *pb.Message) error {
	meta := m.GetSnapshot().GetMetadata()
	hard := &pb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
	marker := raftlog.Marker{Index: meta.GetIndex(), Term: meta.GetTerm(), Conf: meta.GetConfState()}
	if err := a.patiently(func() error { return a.log.Reset(marker, hard) }); err != nil {
		return err
	}
	a.hard, _, _ = a.log.InitialState()
	a.later = nil
	use := indexed(statePrefix, marker.Index)
	if err := a.patiently(func() error { return a.installer.swapIn(indexed(preparedPrefix, marker.Index), use) }); err != nil {
		return err
	}
	return a.installer.renew(use, marker)
}

// installer puts a prepared state in the place of the one that a node has.
type installer struct {
	opt      Options
	end      *shutdown
	log      *raftlog.Log
	state    *current
	progress *progress
	options  func(dir string) state.Options
	full     *atomic.Bool // the node's
	done     func()       // called when it is in place
}

// dirs are the directories of the member's states.
func (n *installer) dirs() *stateDirs {
	return &stateDirs{fs: n.opt.FS, dir: n.opt.Dir, log: n.log, options: n.options, logger: n.opt.Logger, use: stateName}
}

// swapIn is the first half of step 4.
func (n *installer) swapIn(prepared, use string) error {
	d := n.dirs()
	d.use = use
	return d.swap(prepared)
}

// renew is the rest of step 4, and step 5.
func (n *installer) renew(use string, at raftlog.Marker) error {
	ctx, cancel := n.end.context()
	defer cancel()
	next, err := state.OpenWithin(ctx, n.options(path.Join(n.opt.Dir, use)))
	if err != nil {
		return err
	}
	if is := next.Applied(); is.Index != at.Index || is.Term != at.Term {
		return errors.Join(fmt.Errorf("the state in %s is at entry %d, and was to be at entry %d", use, is.Index, at.Index), next.Leave())
	}
	n.log.StateDurable(at.Index)
	n.state.replace(next, n.retire)
	n.progress.advance(at.Index, at.Term)
	n.done()
	n.opt.Logger.Info("arakoon node has the state of another member", slog.Uint64("index", at.Index))
	return nil
}

// retire closes a state whose place another one has taken, and removes its files.
func (n *installer) retire(old *state.State) {
	old.Abandon() // it may be waiting for room
	n.full.Store(false)
	_ = old.Leave() // nothing in it is wanted any more
	err := n.opt.FS.RemoveAll(old.Dir())
	if err != nil {
		n.opt.Logger.Warn("arakoon node cannot remove its old state", slog.Any("error", err))
	}
}
