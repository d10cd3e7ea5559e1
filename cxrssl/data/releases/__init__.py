"""Published datasets: a class for each, which turns the folder of its release into an index."""

from cxrssl.data.releases.bimcv import BIMCVCOVID19
from cxrssl.data.releases.boxes import Box, format_boxes, parse_boxes
from cxrssl.data.releases.brax import BRAX
from cxrssl.data.releases.candid import CandidPTX
from cxrssl.data.releases.chest_imagenome import ChestImaGenome
from cxrssl.data.releases.chestdr import ChestDR
from cxrssl.data.releases.chestxdet import ChestXDet, ChestXDet10
from cxrssl.data.releases.chexmask import CheXmask
from cxrssl.data.releases.chexpert import CheXpert
from cxrssl.data.releases.chexpert_plus import CheXpertPlus
from cxrssl.data.releases.covidx import COVIDx
from cxrssl.data.releases.cxr_lt import CXRLT2023, CXRLT2024
from cxrssl.data.releases.jsrt import JSRT
from cxrssl.data.releases.kermany import KermanyPneumonia
from cxrssl.data.releases.medmnist import ChestMNIST, PneumoniaMNIST
from cxrssl.data.releases.mimic import MIMICCXR, MIMICCXRJPG
from cxrssl.data.releases.mimic_lung_segment import MIMICLungSegment
from cxrssl.data.releases.nih import NIHChestXray14
from cxrssl.data.releases.nlm import Montgomery, Shenzhen
from cxrssl.data.releases.object_cxr import ObjectCXR
from cxrssl.data.releases.openi import OpenI
from cxrssl.data.releases.padchest import PadChest
from cxrssl.data.releases.plco import PLCO
from cxrssl.data.releases.qata_cov19 import QaTaCOV19
from cxrssl.data.releases.release import Release
from cxrssl.data.releases.rsna import RSNAPneumonia
from cxrssl.data.releases.siim import SIIMPneumothorax
from cxrssl.data.releases.vinbigdata import VinBigData
from cxrssl.data.releases.vindr import VinDrCXR, VinDrPCXR
from cxrssl.data.releases.vindr_ribcxr import VinDrRibCXR
from cxrssl.data.releases.vocabulary import COMMON, to_common

__all__ = [
    "BIMCVCOVID19",
    "BRAX",
    "COMMON",
    "CXRLT2023",
    "CXRLT2024",
    "JSRT",
    "MIMICCXR",
    "MIMICCXRJPG",
    "PLCO",
    "Box",
    "COVIDx",
    "CandidPTX",
    "CheXmask",
    "CheXpert",
    "CheXpertPlus",
    "ChestDR",
    "ChestImaGenome",
    "ChestMNIST",
    "ChestXDet",
    "ChestXDet10",
    "KermanyPneumonia",
    "MIMICLungSegment",
    "Montgomery",
    "NIHChestXray14",
    "ObjectCXR",
    "OpenI",
    "PadChest",
    "PneumoniaMNIST",
    "QaTaCOV19",
    "RSNAPneumonia",
    "Release",
    "SIIMPneumothorax",
    "Shenzhen",
    "VinBigData",
    "VinDrCXR",
    "VinDrPCXR",
    "VinDrRibCXR",
    "format_boxes",
    "parse_boxes",
    "to_common",
]
