//! The codec of all services: prost's, with buffers in the size of our messages.

use core::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// What is allocated for a message at first; it grows for larger ones. tonic's 8 KiB, twice at each
/// end of a call, cost more time than all else that is done for a small call.
const BUFFER: usize = 1 << 10;
/// Bytes of a stream's messages that are gathered before they are sent; as tonic has it.
const YIELD: usize = 32 << 10;

/// Encodes `T` and decodes `U`.
#[derive(Clone, Copy, Debug)]
pub struct MessageCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for MessageCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for MessageCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(BUFFER, YIELD))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(BUFFER, YIELD))
    }
}
