package image

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"time"
	"unicode/utf8"

	"openvstorage/internal/control"
	"openvstorage/internal/naming"
)

// importing ends the name of a vDisk that is not whole yet.
const importing = ".importing"

// importingName is the name of a vDisk until it is whole. If the name leaves no room for
// the ending, its last part is replaced by a checksum.
func importingName(name string) string {
	dir, base := name[:strings.LastIndexByte(name, '/')+1], name[strings.LastIndexByte(name, '/')+1:]
	if len(base)+len(importing) <= naming.ComponentMax && len(name)+len(importing) <= naming.NameMax {
		return name + importing
	}
	sum := fmt.Sprintf("~%08x", crc32.Checksum([]byte(name), castagnoli))
	keep := min(len(base), naming.ComponentMax-len(sum)-len(importing), naming.NameMax-len(dir)-len(sum)-len(importing))
	if keep <= 0 {
		return sum + importing
	}
	for !utf8.ValidString(base[:keep]) {
		keep-- // in the middle of a character
	}
	return dir + base[:keep] + sum + importing
}

// Import makes a vDisk of an image. It makes the vDisk under another name, fills it,
// compares it, and then gives it its name. After an error it deletes the vDisk. draw, if
// set, is called to show progress in bytes; each byte counts twice, as it is written and
// read back.
func Import(ctx context.Context, client *control.Client, from *Source, name string, draw func(done, total int64)) (control.VDisk, error) {
	if _, err := client.Info(ctx, name); !errors.Is(err, control.ErrNotFound) {
		if err == nil {
			err = fmt.Errorf("vDisk %q: %w; choose another name", name, control.ErrExists)
		}
		return control.VDisk{}, err
	}
	v, err := client.Create(ctx, importingName(name), max(clusterLen, roundUp(from.size)))
	if errors.Is(err, control.ErrExists) {
		return v, fmt.Errorf("import %s: vDisk %q: %w: another import is filling it, or one was killed; if none runs: ovs vdisk delete %s",
			name, importingName(name), control.ErrExists, quote(importingName(name)))
	}
	if errors.Is(err, control.ErrUnknownOutcome) {
		return v, fmt.Errorf("import %s: vDisk %q: may appear, empty: look with ovs vdisk list, and if it is there: ovs vdisk delete %s; then import again: %w",
			name, importingName(name), quote(importingName(name)), err)
	}
	if err != nil {
		return v, err
	}
	err = fill(ctx, client, v, from, draw)
	if err == nil {
		err = client.Rename(ctx, v.Name, name)
		if errors.Is(err, control.ErrUnknownOutcome) {
			err = named(ctx, client, v, name)
		}
		if errors.Is(err, control.ErrUnknownOutcome) {
			return control.VDisk{}, fmt.Errorf("import %s: all of it is on vDisk %s, which may be named %q still: %w", name, v.ID, v.Name, err)
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		err = fmt.Errorf("import %s: %w", name, err)
		if again := undo(ctx, client, v.Name); again != nil {
			// Only the error of the deletion is wrapped: the first one may match a
			// cancellation, which is told by its cause alone.
			err = fmt.Errorf("%v; vDisk %q could not be deleted, delete it: %w", err, v.Name, again)
		}
		return control.VDisk{}, err
	}
	return client.Info(ctx, name)
}

// named finds out whether an import got its name, and gives it the name if it did not.
func named(ctx context.Context, client *control.Client, v control.VDisk, name string) error {
	err := client.Rename(ctx, v.Name, name)
	if !errors.Is(err, control.ErrNotFound) {
		if err != nil {
			err = fmt.Errorf("%w: %w", control.ErrUnknownOutcome, err)
		}
		return err
	}
	now, err := client.Info(ctx, name)
	if err == nil && now.ID != v.ID {
		err = fmt.Errorf("vDisk %q: another", name)
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", control.ErrUnknownOutcome, err)
	}
	return err
}

// undo deletes what an import has made. It tries for a moment, until the server has seen
// that nobody is connected any more.
func undo(ctx context.Context, client *control.Client, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	for {
		err := client.Delete(ctx, name)
		if !errors.Is(err, control.ErrBusy) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// roundUp returns the size of a vDisk that an image of n bytes fits on.
func roundUp(n int64) uint64 { return uint64(n+clusterLen-1) &^ (clusterLen - 1) }

// fill writes an image to an empty vDisk, and reads it back.
func fill(ctx context.Context, client *control.Client, v control.VDisk, from *Source, draw func(done, total int64)) error {
	disk, err := dialNBD(ctx, v, v.Name)
	if err != nil {
		return err
	}
	defer disk.Close()
	w := newFiller(disk)
	err = from.each(ctx, func(off int64, p []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if end := roundUp(off + int64(len(p))); end > v.Size {
			// The length of the image is not known: the disk grows before the image
			// does.
			if err := client.Resize(ctx, v.Name, end); err != nil {
				return err
			}
			v.Size = end
		}
		if draw != nil {
			draw(off, 2*from.size)
		}
		for len(p) > 0 {
			n := min(len(p), pieceSize)
			if err := w.write(off, p[:n]); err != nil {
				return err
			}
			off, p = off+int64(n), p[n:]
		}
		return nil
	})
	if err = errors.Join(err, w.wait()); err != nil {
		return err
	}
	if err := disk.Flush(); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return w.compare(func(at int64) {
		if draw != nil {
			draw(from.size+at, 2*from.size)
		}
	})
}
