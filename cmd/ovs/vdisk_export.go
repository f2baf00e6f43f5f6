package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"openvstorage/internal/control"
)

func (a *app) vdiskExport() *cobra.Command {
	return &cobra.Command{
		Use:   "export NAME[@SNAP] FILE",
		Short: "copy a vDisk or a snapshot to a raw image file",
		Long: `ovs vdisk export copies a vDisk, or a snapshot of it, to a raw image with holes
where nothing but zeros is. FILE appears when all of it is there; "-" is standard
output, which gets every byte.

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
				return a.export(c.Context(), client, name, snap, &stream{out: a.stdout})
			}
			file, err := newImage(args[1])
			if err != nil {
				return err
			}
			if err := a.export(c.Context(), client, name, snap, file); err != nil {
				return errors.Join(err, file.abandon())
			}
			return a.done("exported", args[0])
		},
	}
}

// image is where an export goes.
type image interface {
	// put takes bytes at an offset, in order of offset. What is left out is zero.
	put(off int64, p []byte) error
	// end says how large the image is. Then it is there, durably.
	end(size int64) error
}

// export copies a vDisk or a snapshot to an image.
func (a *app) export(ctx context.Context, client *control.Client, name, snap string, to image) error {
	v, err := client.Info(ctx, name)
	if err != nil {
		return err
	}
	what := name
	if snap != "" {
		what += "@" + snap
	}
	disk, err := dialNBD(ctx, v, what)
	if err != nil {
		return fmt.Errorf("export %s: %w", what, err)
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
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("export %s: %w", what, err)
	}
	return nil
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

// imageFile is an image that gets its name when it is whole.
type imageFile struct {
	*os.File
	name string
}

// newImage begins the image of a name. Only a plain file is put in the place of
// another.
func newImage(name string) (*imageFile, error) {
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		return nil, usagef("%s is no plain file: give another name, or \"-\" and write it with dd", name)
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*.part")
	if err != nil {
		return nil, err
	}
	return &imageFile{f, name}, nil
}

func (f *imageFile) put(off int64, p []byte) error {
	for at, run := range dataRuns(p) {
		if _, err := f.WriteAt(run, off+int64(at)); err != nil {
			return err
		}
	}
	return nil
}

func (f *imageFile) end(size int64) error {
	if err := f.Truncate(size); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.File.Name(), f.name); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(f.name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// abandon removes what is there of an image that did not get its name.
func (f *imageFile) abandon() error {
	_ = f.Close()
	if err := os.Remove(f.File.Name()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
