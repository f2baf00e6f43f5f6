package main

import (
	"github.com/spf13/cobra"

	"openvstorage/internal/control"
)

func (cmds snapshotCommands) delete() *cobra.Command {
	return &cobra.Command{
		Use:               "delete NAME SNAP",
		Short:             "remove a snapshot",
		Args:              wants("NAME", "SNAP"),
		ValidArgsFunction: cmds.offers().names(true),
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, args []string) error {
			if err := client.SnapshotDelete(c.Context(), args[0], args[1]); err != nil {
				return err
			}
			return cmds.done("deleted", args[0]+"@"+args[1])
		}),
	}
}
