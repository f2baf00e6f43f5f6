package asd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync/atomic"

	"openvstorage/internal/disk"
)

// checkpoints writes the newest checkpoint of the index, which makes starting cheap, and
// reads it. One goroutine at a time writes: upkeep, or whoever opens or closes the ASD.
type checkpoints struct {
	dir      *directory
	health   *health
	contents *contents
	stats    *counters
	size     atomic.Int64 // of the newest file, in bytes; 0: there is none
}

// found notes that a checkpoint that was loaded is in use.
func (k *checkpoints) found(c *checkpointed) { k.size.Store(c.size) }

// bytes returns the length of the newest checkpoint.
func (k *checkpoints) bytes() int64 { return k.size.Load() }

// due reports whether a checkpoint is worth while: a segment was written since the last
// one, and ten times as much as the checkpoint itself takes.
func (k *checkpoints) due(segmentBytes int64) bool {
	return k.contents.unsaved() >= max(segmentBytes, 10*k.bytes())
}

// write writes the index to its file, while Applys go on. The new file has been synced
// before it takes the name of the one before.
func (k *checkpoints) write() error {
	seq, list := k.contents.snapshot()
	size, err := k.writeFile(seq, list)
	temp := k.dir.join(indexNew)
	if err == nil {
		if err = k.dir.fs.Rename(temp, k.dir.join(indexName)); err == nil {
			if err = k.dir.sync(); err != nil {
				err = k.health.fail(err) // nobody may sync again and believe it (rule P6)
			}
		}
	}
	if err != nil {
		k.contents.checkpointed(seq, false)
		k.dir.fs.Remove(temp)
		return fmt.Errorf("checkpoint of the index: %w", err)
	}
	k.size.Store(size)
	k.contents.checkpointed(seq, true)
	k.stats.indexBytes.Add(uint64(size))
	return nil
}

func (k *checkpoints) writeFile(seq uint64, list []savedSegment) (int64, error) {
	f, err := k.dir.openFile(k.dir.join(indexNew), disk.Write|disk.Create|disk.Truncate)
	if err != nil {
		return 0, err
	}
	w := &indexWriter{file: f}
	err = encodeIndex(w, k.dir.id, rand.Uint64(), seq, list, k.contents)
	if err == nil {
		err = f.Datasync()
	}
	return w.at, errors.Join(err, f.Close())
}

// load reads the checkpoint into the index of the contents. It returns nil if there is
// none. An ASD can be opened without its checkpoint, since the segments have all that is
// in it: so errIndex and errors of the medium are not reasons to refuse.
func (k *checkpoints) load() (*checkpointed, error) {
	name := k.dir.join(indexName)
	f, err := k.dir.openFile(name, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	bad := 0
	r := &retryingReader{file: f, name: name, bad: &bad}
	c, x, err := decodeIndex(io.NewSectionReader(r, 0, size), k.dir.id)
	if r.err != nil {
		return nil, r.err // the disk's error, not that of decoding, which follows from it
	}
	if isNewer(err) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err != nil {
		return nil, err
	}
	c.size = size
	k.contents.load(x)
	return c, nil
}
