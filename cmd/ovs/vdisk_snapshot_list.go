package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"openvstorage/internal/control"
)

func (cmds snapshotCommands) list() *cobra.Command {
	return &cobra.Command{
		Use:               "list NAME",
		Short:             "list the snapshots of a vDisk, oldest first",
		Args:              wants("NAME"),
		ValidArgsFunction: cmds.offers().names(false),
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, args []string) error {
			list, err := client.SnapshotList(c.Context(), args[0])
			if err != nil {
				return err
			}
			return cmds.print(list, func(w io.Writer) { writeSnapshots(w, list) })
		}),
	}
}

func writeSnapshots(w io.Writer, list []control.SnapshotInfo) {
	fmt.Fprintln(w, "SNAPSHOT\tSIZE\tCREATED\tSTORED\tCLONES")
	for _, s := range list {
		stored, children := "no", "-"
		if s.Stored {
			stored = "yes"
		}
		if s.Unsure {
			stored = "it may be deleted"
		}
		if len(s.Children) > 0 {
			children = strings.Join(s.Children, ",")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", s.Name, human(s.Size), when(s.Created), stored, children)
	}
}
