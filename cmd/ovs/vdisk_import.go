package main

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"openvstorage/internal/control"
	"openvstorage/internal/naming"
	"openvstorage/volumedriver"
)

func (a *app) vdiskImport() *cobra.Command {
	opt := sourceOptions{format: formatAuto}
	c := &cobra.Command{
		Use:   "import FILE NAME",
		Short: "make a vDisk of a raw image file",
		Long: `ovs vdisk import makes a vDisk of a raw image and reads it back to compare.
Zeros are not stored. FILE may be "-", standard input. A size that is no multiple
of 4096 bytes is filled up with zeros.

An image that ends before its own partition table, file system, volume of LVM or
swap area does was cut short, and is refused; with --size, and the bytes that it
has, it is taken. Nobody can tell any other pipe that is cut from one that ends:
with --size an import fails that gets fewer bytes, or more. Without it, one fails
that gets none, or ends within a sector of 512 bytes.

Images in other formats (qcow2, VMDK, VHDX, VDI, gzip and the like) are refused;
the error says how to make a raw one. --format raw takes every byte as it is.

Until it is whole the vDisk is called NAME.importing. An import that fails or is
stopped removes it; one that is killed leaves it, to be deleted by hand. A file
that is written while it is read makes no vDisk.`,
		Example: `  ovs vdisk import disk1.raw disk1
  qemu-img convert -f qcow2 -O raw disk.qcow2 disk.raw
  zstd -dc disk.raw.zst | ovs vdisk import - disk1 --size 20GiB`,
		Args:              wants("FILE", "NAME"),
		ValidArgsFunction: a.completeImportFile(),
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("size") && (opt.size == 0 || opt.size > math.MaxInt64) {
				return usagef("%s: --size %v: give the bytes that the image has", c.CommandPath(), opt.size)
			}
			if opt.format != formatAuto && opt.format != formatRaw {
				return usagef("%s: --format %q: give auto or raw", c.CommandPath(), opt.format)
			}
			if err := naming.Check(args[1]); err != nil {
				return usagef("%s: %w", c.CommandPath(), err)
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			image, err := openSource(c.Context(), args[0], opt)
			if err != nil {
				return err
			}
			defer image.Close()
			v, err := a.importImage(c.Context(), client, image, args[1])
			if err != nil {
				return err
			}
			if !image.known() && !a.json {
				fmt.Fprintf(a.stderr, "%v ended after %d bytes, and nothing said how many there are; --size does\n", image, image.taken)
			}
			return a.printMade("imported", v)
		},
	}
	c.Flags().Var(&opt.size, "size", "bytes that the image has, for instance 10GiB; any other number is an error")
	c.Flags().StringVarP(&opt.format, "format", "f", formatAuto, "`format` of the image: raw, whatever it begins with, or auto: raw, if it does not look like another")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]cobra.Completion{formatAuto, formatRaw}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// importing is what the name of a vDisk ends with that is not whole yet.
const importing = ".importing"

// importingName is the name of a vDisk until it is whole. Where the whole name
// leaves no room for the ending, a checksum stands for the rest of it.
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

// importImage makes a vDisk under another name, fills it, compares it, and gives
// it its name.
func (a *app) importImage(ctx context.Context, client *control.Client, from *imageSource, name string) (control.VDisk, error) {
	if _, err := client.Info(ctx, name); !errors.Is(err, volumedriver.ErrNotFound) {
		if err == nil {
			err = fmt.Errorf("vDisk %q %w; choose another name", name, volumedriver.ErrExists)
		}
		return control.VDisk{}, err
	}
	v, err := client.Create(ctx, importingName(name), max(clusterLen, roundUp(from.size)))
	if errors.Is(err, volumedriver.ErrExists) {
		return v, fmt.Errorf("import %s: %w: another import is filling it, or one was killed; if none runs: ovs vdisk delete %s", name, err, quote(importingName(name)))
	}
	if errors.Is(err, volumedriver.ErrUnknownOutcome) {
		return v, fmt.Errorf("import %s: vDisk %q may appear, empty: look with ovs vdisk list, and if it is there: ovs vdisk delete %s; then import again: %w",
			name, importingName(name), quote(importingName(name)), err)
	}
	if err != nil {
		return v, err
	}
	draw, end := a.progress("import " + name)
	err = fill(ctx, client, v, from, draw)
	end()
	if err == nil {
		err = client.Rename(ctx, v.Name, name)
		if errors.Is(err, volumedriver.ErrUnknownOutcome) {
			err = named(ctx, client, v, name)
		}
		if errors.Is(err, volumedriver.ErrUnknownOutcome) {
			return control.VDisk{}, fmt.Errorf("import %s: all of it is on vDisk %s, which may be named %q still: %w", name, v.ID, v.Name, err)
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		err = fmt.Errorf("import %s: %w", name, err)
		if again := undo(ctx, client, v.Name); again != nil {
			// Not %w: a cancellation is told by its cause alone.
			err = fmt.Errorf("%v; vDisk %q could not be deleted, delete it: %w", err, v.Name, again)
		}
		return control.VDisk{}, err
	}
	return client.Info(ctx, name)
}

// named finds out whether an import got its name, and gives it the name if not.
func named(ctx context.Context, client *control.Client, v control.VDisk, name string) error {
	err := client.Rename(ctx, v.Name, name)
	if !errors.Is(err, volumedriver.ErrNotFound) {
		if err != nil {
			err = fmt.Errorf("%w: %w", volumedriver.ErrUnknownOutcome, err)
		}
		return err
	}
	now, err := client.Info(ctx, name)
	if err == nil && now.ID != v.ID {
		err = fmt.Errorf("vDisk %q: is another one now", name)
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", volumedriver.ErrUnknownOutcome, err)
	}
	return err
}

// undo deletes what an import has made. The server may take a moment to see that
// nobody is connected any more.
func undo(ctx context.Context, client *control.Client, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	for {
		err := client.Delete(ctx, name)
		if !errors.Is(err, volumedriver.ErrBusy) {
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
func fill(ctx context.Context, client *control.Client, v control.VDisk, from *imageSource, draw func(done, total int64)) error {
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
			// An image of unknown length: the disk grows before it.
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
