package main

import (
	"github.com/spf13/cobra"

	"openvstorage/internal/control"
)

func (cmds vdiskCommands) rename() *cobra.Command {
	return &cobra.Command{
		Use:               "rename OLD NEW",
		Short:             "give a vDisk another name",
		Args:              wants("OLD", "NEW"),
		ValidArgsFunction: cmds.offers().names(false),
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, args []string) error {
			if err := client.Rename(c.Context(), args[0], args[1]); err != nil {
				return err
			}
			return cmds.done("renamed", args[1])
		}),
	}
}
