package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"openvstorage/arakoon"
	"openvstorage/internal/disk"
)

// fetcher brings snapshots over the network of a simulation, by parts, and goes on with
// a file where an earlier call ended. It implements arakoon.Fetcher.
type fetcher struct {
	group *group
	life  *life
}

const fetchPart = 16 << 10

// Fetch brings the files of a snapshot; see arakoon.Fetcher. It fails as soon as the way
// is cut, or the other member has ended.
func (f fetcher) Fetch(ctx context.Context, from uint64, id arakoon.SnapshotID, dir string) error {
	source, err := f.source(from)
	if err != nil {
		return err
	}
	s, err := source.OpenSnapshot(id)
	if err != nil {
		return err
	}
	defer s.Close()
	for _, file := range s.Files() {
		if err := f.file(ctx, from, s, file, dir); err != nil {
			return fmt.Errorf("%s: %w", file.Name, err)
		}
	}
	f.group.fetched.Add(1)
	return nil
}

// Hold opens a snapshot that is needed still; see arakoon.Fetcher.
func (f fetcher) Hold(_ context.Context, from uint64, id arakoon.SnapshotID) error {
	source, err := f.source(from)
	if err != nil {
		return err
	}
	s, err := source.OpenSnapshot(id)
	if err == nil {
		s.Close()
	}
	return err
}

func (f fetcher) source(from uint64) (*arakoon.Node, error) {
	l, ok := f.group.net.reaches(f.life.id, from)
	if !ok || f.life.over() {
		return nil, fmt.Errorf("member %d is not reached", from)
	}
	n := l.running()
	if n == nil {
		return nil, fmt.Errorf("member %d does not run", from)
	}
	return n, nil
}

func (f fetcher) file(ctx context.Context, from uint64, s *arakoon.Snapshot, file arakoon.SnapshotFile, dir string) (err error) {
	to, err := f.life.fault.OpenFile(path.Join(dir, file.Name), disk.Write|disk.Create, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	at, err := to.Size()
	if err != nil {
		return err
	}
	for buf := make([]byte, fetchPart); at < file.Size; {
		if _, err := f.source(from); err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		n, err := s.ReadAt(file.Name, buf[:min(fetchPart, file.Size-at)], at)
		if err != nil && (n == 0 || !errors.Is(err, io.EOF)) {
			return err
		}
		if _, err := to.WriteAt(buf[:n], at); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}
