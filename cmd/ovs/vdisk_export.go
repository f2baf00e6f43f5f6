package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"openvstorage/internal/control"
	"openvstorage/internal/image"
)

func (cmds vdiskCommands) exportImage() *cobra.Command {
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
		ValidArgsFunction: cmds.offers().images(),
		RunE: func(c *cobra.Command, args []string) error {
			name, snap, err := nameAndSnapshot(c.CommandPath(), args[0])
			if err != nil {
				return err
			}
			client, err := cmds.client()
			if err != nil {
				return err
			}
			if args[1] == "-" {
				_, err := cmds.copyTo(c.Context(), client, name, snap, image.NewStream(cmds.stdout))
				return err
			}
			file, err := image.Create(args[1])
			if err != nil {
				return err
			}
			size, err := cmds.copyTo(c.Context(), client, name, snap, file)
			if err != nil { // a file that is not whole must not get the name
				return errors.Join(err, file.Abandon())
			}
			result := exported{Done: "exported", Name: args[0], File: file.Target(), Size: size}
			return cmds.print(result, func(w io.Writer) { fmt.Fprintf(w, "exported %s\n", args[0]) })
		},
	}
}

// exported is what --json prints.
type exported struct {
	Done string `json:"done"`
	Name string `json:"name"` // NAME[@SNAP]
	File string `json:"file"` // the file that was written, if FILE is a symbolic link to it
	Size int64  `json:"size"` // bytes
}

// copyTo copies a vDisk or a snapshot to an image, and returns its size in bytes.
func (cmds vdiskCommands) copyTo(ctx context.Context, client *control.Client, name, snap string, to image.Destination) (int64, error) {
	what := name
	if snap != "" {
		what += "@" + snap
	}
	draw, end := cmds.progress("export " + what)
	defer end()
	return image.Export(ctx, client, name, snap, to, draw)
}

// nameAndSnapshot splits NAME[@SNAP].
func nameAndSnapshot(command, text string) (name, snap string, err error) {
	name, snap, named := strings.Cut(text, "@")
	if named && snap == "" {
		return "", "", usagef("%s: %q names no snapshot after the '@'", command, text)
	}
	return name, snap, nil
}
