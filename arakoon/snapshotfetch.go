package arakoon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/arakoon/state"
	"openvstorage/internal/disk"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// How often a fetch is tried again while nothing more comes, and after how long: that
// doubles from the first to the last. A full disk is waited for.
const (
	fetchTries       = 20
	fetchAgain       = 100 * time.Millisecond
	fetchAgainAtMost = 5 * time.Second
)

// incoming fetches a snapshot of another member, and makes it a state of this one. One at a
// time; what else is offered meanwhile is dropped, as the leader offers it again.
type incoming struct {
	opt      Options
	states   func(dir string) state.Options
	end      *shutdown
	work     *queue[any] // for the stepper: arrived, messages
	progress *progress
	may      func() bool // whether the files of this member may be replaced
	lineage  func() (life, generation uint64)

	full    atomic.Bool  // it waits for room
	checked atomic.Int64 // bytes that were read to be checked

	mu     sync.Mutex
	id     SnapshotID
	busy   bool               // from the offer until the snapshot is stored, or dropped
	cancel context.CancelFunc // ends the fetch; nil when it is done
	dir    string
	had    int64 // bytes in dir, and checked, when another snapshot was offered last; -1: none was
}

func newIncoming(n *Node) *incoming {
	return &incoming{
		opt: n.opt, states: n.installer.options, end: n.end, work: n.work, progress: n.progress, may: n.compactor.may,
		lineage: func() (life, generation uint64) { return n.state.state().Lineage() },
	}
}

// arrived is a snapshot that is a state of this member, and which raft has not seen.
type arrived struct {
	message  *pb.Message
	prepared string // the directory
}

// offer takes raft's message about a snapshot from another member. The error is of a
// message that cannot be right.
func (i *incoming) offer(m *pb.Message) error {
	meta := m.GetSnapshot().GetMetadata()
	if raft.IsEmptySnap(m.GetSnapshot()) || meta.GetConfState() == nil {
		return fmt.Errorf("arakoon: message of member %d about a snapshot says nothing of it", m.GetFrom())
	}
	id, files, err := decodeSnapshotList(m.GetSnapshot().GetData())
	if err != nil {
		return fmt.Errorf("arakoon: snapshot of member %d: %w", m.GetFrom(), err)
	}
	if applied, _ := i.progress.now(); meta.GetIndex() <= applied {
		i.work.put(m) // raft tells the sender how far this member is
		return nil
	}
	if i.opt.Fetcher == nil {
		return fmt.Errorf("arakoon: member %d offers a snapshot, and Options.Fetcher was not given", m.GetFrom())
	}
	release, err := i.end.hold()
	if err != nil {
		return err
	}
	defer release()
	if !i.may() {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.busy {
		i.compare(id)
		return nil
	}
	ctx, cancel := i.end.context()
	i.busy, i.id, i.cancel, i.had = true, id, cancel, -1
	i.dir = path.Join(i.opt.Dir, incomingPrefix+id.String())
	i.end.run(func() {
		defer cancel()
		i.fetch(ctx, m, files)
	})
	return nil
}

// compare gives a fetch up if another snapshot is offered for the second time, and nothing
// came or was checked in between: whoever has the one that is fetched may be gone for good. mu is held.
func (i *incoming) compare(id SnapshotID) {
	if id == i.id || i.cancel == nil {
		return
	}
	have := sizeOf(i.opt.FS, i.dir) + i.checked.Load()
	if have == i.had {
		i.cancel()
	}
	i.had = have
}

func sizeOf(fsys disk.FS, dir string) (bytes int64) {
	names, _ := fsys.ReadDir(dir) // without it nothing counts as having come
	for _, n := range names {
		if info, err := fsys.Stat(path.Join(dir, n)); err == nil {
			bytes += info.Size()
		}
	}
	return bytes
}

// fetch fetches a snapshot and hands it to the stepper.
func (i *incoming) fetch(ctx context.Context, m *pb.Message, files []SnapshotFile) {
	dir, log := i.dir, i.opt.Logger.With(slog.String("id", i.id.String()), slog.Uint64("from", m.GetFrom()))
	log.Info("arakoon node fetches a snapshot", slog.Uint64("index", m.GetSnapshot().GetMetadata().GetIndex()))
	needed, enough := i.end.context()
	defer enough()
	i.end.run(func() { i.hold(needed, m.GetFrom(), i.id, log) })
	err := i.bring(ctx, m.GetFrom(), dir, files, log)
	i.mu.Lock()
	i.cancel = nil // from here on it is this member's own work
	i.mu.Unlock()
	prepared := ""
	if err == nil {
		own, cancel := i.end.context()
		defer cancel()
		prepared, err = i.prepare(own, m.GetSnapshot().GetMetadata(), dir)
	}
	i.full.Store(false)
	if err == nil {
		i.work.put(arrived{m, prepared})
		return
	}
	if i.end.err() == nil {
		log.Error("arakoon node gives a snapshot up", slog.Any("error", err))
	}
	i.clear(dir)
	i.done()
}

// done makes way for the next snapshot.
func (i *incoming) done() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.busy = false
}

// refused removes a snapshot that raft does not want, as the log has come so far by itself.
func (i *incoming) refused(prepared string) {
	i.end.run(func() {
		i.clear(prepared)
		i.done()
	})
}

// clear removes a directory. What stays is removed when the member is opened again.
func (i *incoming) clear(dir string) {
	if err := i.opt.FS.RemoveAll(dir); err != nil {
		i.opt.Logger.Warn("arakoon node cannot remove what it has fetched", slog.Any("error", err))
	}
}

// bring fetches all files, and returns when they are good and durable.
func (i *incoming) bring(ctx context.Context, from uint64, dir string, files []SnapshotFile, log *slog.Logger) error {
	wait, most := fetchAgain, int64(0)
	for tries := 0; ; tries++ {
		err := i.opt.FS.MkdirAll(dir, 0o700)
		if err == nil {
			err = i.opt.Fetcher.Fetch(ctx, from, i.id, dir)
		}
		have := sizeOf(i.opt.FS, dir)
		if err == nil {
			if err = i.verify(ctx, dir, files); err == nil {
				return nil
			}
		}
		full := disk.CauseOf(err) == disk.Full
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case errors.Is(err, ErrNoSnapshot):
			return err
		case full, have > most:
			tries, wait = 0, fetchAgain
		case tries >= fetchTries:
			return fmt.Errorf("%d tries: %w", tries, err)
		}
		most = max(most, have)
		if i.full.Store(full); full {
			i.opt.OnFull(err)
		}
		log.Warn("arakoon node waits and then goes on with a snapshot", slog.Any("error", err))
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, fetchAgainAtMost)
	}
}

// sleep waits, or returns why not.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// prepare makes what was fetched a state of this member, under a name that says which entry
// it is at. When it returns nil all of that is durable.
func (i *incoming) prepare(ctx context.Context, meta *pb.SnapshotMetadata, dir string) (prepared string, err error) {
	opt := i.states(dir)
	opt.Life, opt.Generation = i.lineage()
	opt.OnFailure, opt.OnRoom = nil, func() { i.full.Store(false) }
	opt.OnFull = func(err error) {
		i.full.Store(true)
		i.opt.OnFull(err)
	}
	at, err := state.Adopt(ctx, opt)
	if err != nil {
		return "", err
	}
	if at.Index != meta.GetIndex() || at.Term != meta.GetTerm() || !sameConf(at.Conf, meta.GetConfState()) {
		return "", fmt.Errorf("the state in %s is at entry %d of term %d with members %v, and was to be at entry %d of term %d with members %v",
			dir, at.Index, at.Term, at.Conf, meta.GetIndex(), meta.GetTerm(), meta.GetConfState())
	}
	prepared = path.Join(i.opt.Dir, indexed(preparedPrefix, at.Index))
	// One that raft did not want may be left.
	if err := i.opt.FS.RemoveAll(prepared); err != nil {
		return "", err
	}
	if err := i.opt.FS.Rename(dir, prepared); err != nil {
		return "", err
	}
	return prepared, i.opt.FS.SyncDir(i.opt.Dir)
}
