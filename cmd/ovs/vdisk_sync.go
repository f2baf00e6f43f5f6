package main

import (
	"github.com/spf13/cobra"

	"openvstorage/internal/control"
)

func (cmds vdiskCommands) sync() *cobra.Command {
	return &cobra.Command{
		Use:               "sync NAME",
		Short:             "wait until all that was written to a vDisk is in the backend",
		Args:              wants("NAME"),
		ValidArgsFunction: cmds.offers().names(false),
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, args []string) error {
			draw, end := cmds.progress("sync " + args[0])
			err := client.Sync(c.Context(), args[0], draw)
			end()
			if err != nil {
				return err
			}
			return cmds.done("synced", args[0])
		}),
	}
}
