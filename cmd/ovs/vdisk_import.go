package main

import (
	"context"
	"fmt"
	"math"

	"github.com/spf13/cobra"

	"openvstorage/internal/image"
	"openvstorage/internal/naming"
)

func (cmds vdiskCommands) importImage() *cobra.Command {
	opt := image.Options{Format: image.FormatAuto}
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
		ValidArgsFunction: cmds.offers().files(),
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("size") && (opt.Size == 0 || opt.Size > math.MaxInt64) {
				return usagef("%s: --size %v: give the bytes that the image has", c.CommandPath(), opt.Size)
			}
			if opt.Format != image.FormatAuto && opt.Format != image.FormatRaw {
				return usagef("%s: --format %q: give auto or raw", c.CommandPath(), opt.Format)
			}
			// The vDisk gets this name only when all of the image is in it: too late to
			// find that it cannot be one.
			if err := naming.Check(args[1]); err != nil {
				return usagef("%s: %w", c.CommandPath(), err)
			}
			return cmds.importFrom(c.Context(), args[0], args[1], opt)
		},
	}
	c.Flags().Var(&opt.Size, "size", "bytes that the image has, for instance 10GiB; any other number is an error")
	c.Flags().StringVarP(&opt.Format, "format", "f", image.FormatAuto, "`format` of the image: raw, whatever it begins with, or auto: raw, if it does not look like another")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]cobra.Completion{image.FormatAuto, image.FormatRaw}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// importFrom makes a vDisk of the image in a file, "-" for standard input.
func (cmds vdiskCommands) importFrom(ctx context.Context, file, name string, opt image.Options) error {
	client, err := cmds.client()
	if err != nil {
		return err
	}
	source, err := image.Open(ctx, file, opt)
	if err != nil {
		return err
	}
	defer source.Close()
	draw, end := cmds.progress("import " + name)
	v, err := image.Import(ctx, client, source, name, draw)
	end()
	if err != nil {
		return err
	}
	// A pipe that broke looks like one that ended.
	if !source.Known() && !cmds.json {
		fmt.Fprintf(cmds.stderr, "%v ended after %d bytes, and nothing said how many there are; --size does\n", source, source.Taken())
	}
	return cmds.printMade("imported", v)
}
