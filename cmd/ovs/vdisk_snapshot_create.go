package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"openvstorage/internal/control"
)

func (cmds snapshotCommands) create() *cobra.Command {
	return &cobra.Command{
		Use:               "create NAME SNAP",
		Short:             "take a snapshot of a vDisk",
		Args:              wants("NAME", "SNAP"),
		ValidArgsFunction: cmds.offers().names(false),
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, args []string) error {
			s, err := client.SnapshotCreate(c.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			return cmds.print(s, func(w io.Writer) { fmt.Fprintf(w, "created %s@%s\n", args[0], s.Name) })
		}),
	}
}
