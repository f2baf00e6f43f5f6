package main

import "github.com/spf13/cobra"

func (a *app) vdiskSync() *cobra.Command {
	return &cobra.Command{
		Use:               "sync NAME",
		Short:             "wait until all that was written to a vDisk is in the backend",
		Args:              wants("NAME"),
		ValidArgsFunction: a.completeNames(false),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			draw, end := a.progress("sync " + args[0])
			err = client.Sync(c.Context(), args[0], draw)
			end()
			if err != nil {
				return err
			}
			return a.done("synced", args[0])
		},
	}
}
