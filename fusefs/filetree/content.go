package filetree

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"

	"openvstorage/internal/disk"
)

// pieceSize is the size in bytes of the pieces of a content.
const pieceSize = 64 << 10

func pieces(size int64) int { return int((size + pieceSize - 1) / pieceSize) }

// Load returns the content of a file.
func (t *Tree) Load(ctx context.Context, node uint64) ([]byte, error) {
	// No change may come between the entry and its pieces.
	end, err := t.begin(ctx)
	if err != nil {
		return nil, unread(err)
	}
	defer end()
	name, e, ok := t.Path(node)
	if !ok || e.Kind != File {
		return nil, absent(fmt.Sprint("node ", node))
	}
	content := make([]byte, 0, e.Size)
	err = t.keys.Range(ctx, nodeKey(node), func(_, v []byte) bool {
		content = append(content, v...)
		return int64(len(content)) <= e.Size
	})
	if err == nil && int64(len(content)) != e.Size {
		err = fmt.Errorf("%w: %d bytes of %d", errShort, len(content), e.Size)
	}
	if err != nil {
		return nil, fmt.Errorf("file %q: %w", name, unread(err))
	}
	return content, nil
}

// unread makes an error that says that the keys lack room one of reading (EIO): whoever
// reads a file asks for no room.
func unread(err error) error {
	if disk.CauseOf(err) == disk.Full {
		return fmt.Errorf("%w: %w", syscall.EIO, err)
	}
	return err
}

// Room returns nil if a file may grow from one size to another, in bytes.
func (t *Tree) Room(from, to int64) error {
	switch {
	case to > MaxFile:
		return fmt.Errorf("a file of over %d bytes is no small file; a disk is named NAME.raw: %w", MaxFile, syscall.EFBIG)
	case to > from && t.Bytes()+to-from > MaxBytes:
		return fmt.Errorf("the small files have %d bytes, the most together: %w", MaxBytes, syscall.ENOSPC)
	}
	return nil
}

// Store replaces the content of a file. Its pieces from first to last may differ from
// what is stored. If the file was removed there is nothing to store, and no error.
func (t *Tree) Store(ctx context.Context, node uint64, content []byte, first, last int, now time.Time) error {
	end, err := t.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	name, e, ok := t.Path(node)
	if !ok || e.Kind != File {
		return nil
	}
	size := int64(len(content))
	if err := t.Room(e.Size, size); err != nil {
		return fmt.Errorf("file %q: %w", name, err)
	}
	// A piece whose length changes is stored anew.
	if size != e.Size {
		first, last = min(first, int(min(size, e.Size)/pieceSize)), max(last, pieces(size)-1)
	}
	var changes []Change
	i := 0
	for piece := range slices.Chunk(content, pieceSize) {
		if i >= first && i <= last {
			changes = append(changes, Change{pieceKey(node, uint32(i)), piece})
		}
		i++
	}
	for ; i < pieces(e.Size); i++ {
		changes = append(changes, Change{Key: pieceKey(node, uint32(i))})
	}
	e.Size, e.Modified, e.Changed = size, now.UnixNano(), max(e.Changed, now.UnixNano())
	return t.write(ctx, append(changes, Change{entryKey(name), encode(e)}), func() {
		t.bytes += size - t.entries[name].Size
		*t.entries[name] = e
	})
}
