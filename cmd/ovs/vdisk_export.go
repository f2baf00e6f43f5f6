package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"openvstorage/internal/control"
	"openvstorage/volumedriver"
)

func (a *app) vdiskExport() *cobra.Command {
	return &cobra.Command{
		Use:   "export NAME[@SNAP] FILE",
		Short: "copy a vDisk or a snapshot to a raw image file",
		Long: `ovs vdisk export copies a vDisk, or a snapshot of it, to a raw image with holes
where nothing but zeros is. FILE appears when all of it is there, and keeps the
owner and the mode of one that was there before; if it is a symbolic link, what
that leads to is written. Other hard links to a file that was there keep what it
had. "-" is standard output, which gets every byte.

Of a vDisk that is being written the image is of no one moment: export a
snapshot of it.`,
		Example:           "  ovs vdisk export disk1@monday disk1.raw\n  ovs vdisk export disk1 - | ovs vdisk import - disk1 --data other",
		Args:              wants("NAME[@SNAP]", "FILE"),
		ValidArgsFunction: a.completeImage(),
		RunE: func(c *cobra.Command, args []string) error {
			name, snap, err := nameAndSnapshot(c.CommandPath(), args[0])
			if err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			if args[1] == "-" {
				_, err := a.export(c.Context(), client, name, snap, &stream{out: a.stdout})
				return err
			}
			file, err := newImage(args[1])
			if err != nil {
				return err
			}
			size, err := a.export(c.Context(), client, name, snap, file)
			if err != nil {
				return errors.Join(err, file.abandon())
			}
			result := exported{Done: "exported", Name: args[0], File: file.name, Size: size}
			return a.print(result, func(w io.Writer) { fmt.Fprintf(w, "exported %s\n", args[0]) })
		},
	}
}

// exported is what --json prints.
type exported struct {
	Done string `json:"done"`
	Name string `json:"name"` // NAME[@SNAP]
	File string `json:"file"` // that was written: not a symbolic link to it
	Size int64  `json:"size"` // bytes
}

// image is where an export goes.
type image interface {
	// put takes bytes at an offset, in order of offset. What is left out is zero.
	put(off int64, p []byte) error
	// end says how large the image is. Then it is there, durably.
	end(size int64) error
}

// export copies a vDisk or a snapshot to an image, and returns its size in bytes.
func (a *app) export(ctx context.Context, client *control.Client, name, snap string, to image) (int64, error) {
	v, err := client.Info(ctx, name)
	if err != nil {
		return 0, err
	}
	what := name
	if snap != "" {
		what += "@" + snap
	}
	disk, err := dialNBD(ctx, v, what)
	if err != nil && snap != "" {
		err = orNoSnapshot(ctx, client, name, snap, err)
		if errors.Is(err, volumedriver.ErrNotFound) {
			return 0, err
		}
	}
	if err != nil {
		return 0, fmt.Errorf("export %s: %w", what, err)
	}
	defer disk.Close()
	draw, end := a.progress("export " + what)
	defer end()
	err = readSpans(disk, allocated(disk), func(off int64, p []byte) error {
		if draw != nil {
			draw(off+int64(len(p)), disk.Size())
		}
		return to.put(off, p)
	})
	if err == nil {
		err = to.end(disk.Size())
	}
	if err != nil && ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("export %s: %w", what, err)
	}
	return disk.Size(), nil
}

// orNoSnapshot is why a snapshot could not be opened: as the server says it, or as
// every other command does that it is not there.
func orNoSnapshot(ctx context.Context, client *control.Client, name, snap string, err error) error {
	list, failed := client.SnapshotList(ctx, name)
	if failed != nil || slices.ContainsFunc(list, func(s volumedriver.SnapshotInfo) bool { return s.Name == snap }) {
		return err
	}
	return fmt.Errorf("vDisk %q: has no snapshot %q: %w", name, snap, volumedriver.ErrNotFound)
}

// stream is an image on what cannot be sought.
type stream struct {
	out io.Writer
	at  int64
}

func (s *stream) put(off int64, p []byte) error {
	if err := s.zero(off); err != nil {
		return err
	}
	n, err := s.out.Write(p)
	s.at += int64(n)
	return err
}

// zero writes zeros up to an offset.
func (s *stream) zero(to int64) error {
	block := make([]byte, min(pieceSize, max(0, to-s.at)))
	for s.at < to {
		n, err := s.out.Write(block[:min(int64(len(block)), to-s.at)])
		if s.at += int64(n); err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) end(size int64) error { return s.zero(size) }
