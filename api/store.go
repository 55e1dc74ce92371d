package api

import (
	"context"
	"net/http"
)

func (o *operations) GetStore(ctx context.Context, _ GetStoreRequestObject) (GetStoreResponseObject, error) {
	status, err := o.config.Keeper.StoreStatus(ctx)
	if err != nil {
		return nil, err
	}
	status.Members = filled(status.Members)
	return GetStore200JSONResponse(status), nil
}

func (o *operations) ExportStore(ctx context.Context, _ ExportStoreRequestObject) (ExportStoreResponseObject, error) {
	return &exportStream{ctx: ctx, keeper: o.config.Keeper}, nil
}

// exportStream answers with the store's records while they are read.
type exportStream struct {
	ctx    context.Context
	keeper Keeper
}

func (e *exportStream) VisitExportStoreResponse(w http.ResponseWriter) error {
	return stream(w, "application/x-ndjson", func(out *flushWriter) error { return e.keeper.Export(e.ctx, out) })
}
